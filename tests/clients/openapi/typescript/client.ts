// A client that openapi-typescript and openapi-fetch make of gen/openapi.json: see ../README.md.
import { readFileSync } from "node:fs";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

const known = JSON.parse(readFileSync(process.env["TICKETS_CREDENTIALS"]!, "utf8")) as Record<string, string>;

function client(headers: Record<string, string>) {
  return createClient<paths>({ baseUrl: known["rest_url"]!, headers });
}

function check(step: string, holds: boolean, seen: unknown) {
  if (!holds) throw new Error(`${step}: ${JSON.stringify(seen)}`);
  console.log(`ok ${step}`);
}

async function handoff() {
  const api = client({ authorization: `Bearer ${known["handoff_token"]}` });
  const path = { project_id: known["handoff_project_id"]! };
  const body: components["schemas"]["HandoffNewTicket"] = {
    title: "Login fails",
    description: "500 on /login",
    request_type: "bug",
  };
  const header = { "Idempotency-Key": crypto.randomUUID() };
  const made = await api.POST("/api/projects/{project_id}/tickets", { params: { path, header }, body });
  check("handoff create", made.response.status === 201 && made.data?.ticket.status === "open", made);
  const ticket_id = made.data!.ticket.id;
  const listed = await api.GET("/api/projects/{project_id}/tickets", { params: { path, query: { limit: 1 } } });
  check("handoff list", listed.data?.tickets[0]?.id === ticket_id, listed);
  const one = { params: { path: { ...path, ticket_id } } };
  const read = await api.GET("/api/projects/{project_id}/tickets/{ticket_id}", one);
  check("handoff read", read.data?.ticket.title === body.title, read);
  const changed = await api.PATCH("/api/projects/{project_id}/tickets/{ticket_id}", { ...one, body: { title: "Again" } });
  check("handoff change", changed.data?.ticket.title === "Again", changed);
  const missing = await api.GET("/api/projects/{project_id}/tickets/{ticket_id}", {
    params: { path: { ...path, ticket_id: crypto.randomUUID() } },
  });
  check("handoff error", missing.response.status === 404 && missing.error?.code === "not_found", missing);
}

async function helpdesk() {
  const api = client({ authorization: `Bearer ${known["helpdesk_token"]}` });
  const made = await api.POST("/api/v1/helpdesk/tickets", { body: { title: "New laptop" } });
  check("helpdesk create", made.response.status === 201 && made.data?.description === null, made);
  const id = made.data!.id;
  const listed = await api.GET("/api/v1/helpdesk/tickets", { params: { query: { limit: 1 } } });
  check("helpdesk list", listed.data?.tickets[0]?.id === id, listed);
  const read = await api.GET("/api/v1/helpdesk/tickets/{id}", { params: { path: { id } } });
  check("helpdesk read", read.data?.number === made.data!.number, read);
  const body = { description: "The old one is broken." };
  const changed = await api.PATCH("/api/v1/helpdesk/tickets/{id}", { params: { path: { id } }, body });
  check("helpdesk change", changed.data?.description === body.description, changed);
  const missing = await api.GET("/api/v1/helpdesk/tickets/{id}", { params: { path: { id: "tkt_none" } } });
  check("helpdesk error", missing.response.status === 404 && missing.error?.code === "not_found", missing);
}

async function itsm() {
  const api = client({ "x-api-key": known["itsm_api_key"]! });
  const made = await api.POST("/api/v1/tickets", {
    body: { subject: "VPN is down", description: "Since nine.", metadata: { floor: 3 } },
  });
  check("itsm create", made.response.status === 201 && made.data?.priority === null, made);
  const path = { ticket_id: made.data!.id };
  const listed = await api.GET("/api/v1/tickets", { params: { query: { limit: 1 } } });
  check("itsm list", listed.data?.tickets[0]?.id === path.ticket_id && listed.data.total > 0, listed);
  const read = await api.GET("/api/v1/tickets/{ticket_id}", { params: { path } });
  check("itsm read", read.data?.metadata["floor"] === 3, read);
  const changed = await api.PATCH("/api/v1/tickets/{ticket_id}", { params: { path }, body: { priority: "high" } });
  check("itsm change", changed.data?.priority === "high", changed);
  const cleared = await api.PATCH("/api/v1/tickets/{ticket_id}", { params: { path }, body: { priority: null } });
  check("itsm clear", cleared.data?.priority === null, cleared);
  const other = { path: { ticket_id: crypto.randomUUID() } };
  const missing = await api.GET("/api/v1/tickets/{ticket_id}", { params: other });
  check("itsm error", missing.response.status === 404 && missing.error !== undefined, missing);
}

await handoff();
await helpdesk();
await itsm();
