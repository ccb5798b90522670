/** The scenario of ../README.md, with the client of `gen/typescript`. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Code, itsm, TicketsClient, TicketsError } from "@tickets-service/client";
import { grpc } from "@tickets-service/client/node";
import { grpcWeb } from "@tickets-service/client/web";

type Ticket = { subject: string; description: string; priority?: string; requester_email?: string; metadata?: object };

interface Steps {
  create: { ticket: Ticket; expect: Record<string, string | null> };
  repeat: { expect: { idempotent_replayed: string } };
  reuse_key: { ticket: Ticket; expect: Failure };
  pages: { create: number; limit: number; status: string; expect: { pages_at_least: number } };
  clear: { update_mask: ("priority" | "requester_email")[]; expect: Record<string, string | null> };
  invalid: { ticket: Ticket; expect: Failure & { fields: string[]; message_begins: string } };
  not_found: { ticket_id: string; expect: Failure & { message: string } };
  watch: { status: string; expect: { type: string } };
  resume: { status: string; expect: { types: string[] } };
}

interface Failure {
  code: string;
  reason: string;
}

const { env } = process;
const credentials = JSON.parse(readFileSync(env["TICKETS_CREDENTIALS"] ?? "", "utf8")) as Record<string, string>;
const { steps } = JSON.parse(readFileSync(env["TICKETS_SCENARIO"] ?? "", "utf8")) as { steps: Steps };
// `TICKETS_TRANSPORT=grpc-web` is what a browser would do, through the gateway.
const transport =
  env["TICKETS_TRANSPORT"] === "grpc-web"
    ? grpcWeb(credentials["rest_url"] ?? "")
    : grpc(`http://${credentials["grpc_target"]}`);
const { tickets } = new TicketsClient({ transport, apiKey: credentials["itsm_api_key"] }).itsm;

/** The enums have the words of the documents in upper case. */
function word<E extends Record<string, string | number>>(vocabulary: E, name: string): E[keyof E] {
  return vocabulary[name.toUpperCase()] as E[keyof E];
}

function status(name: string): itsm.Status {
  return word(itsm.Status, name) as itsm.Status;
}

function members({ priority, requester_email, metadata, ...texts }: Ticket): itsm.NewTicket {
  return {
    ...texts,
    priority: priority === undefined ? undefined : (word(itsm.Priority, priority) as itsm.Priority),
    requesterEmail: requester_email,
    metadataJson: metadata === undefined ? undefined : JSON.stringify(metadata),
  };
}

/** What a ticket has of the documented members, in the documented words; null is absent. */
function seen(ticket: itsm.Ticket): Record<string, string | undefined> {
  return {
    subject: ticket.subject,
    status: itsm.Status[ticket.status].toLowerCase(),
    priority: ticket.priority === undefined ? undefined : itsm.Priority[ticket.priority].toLowerCase(),
    requester_email: ticket.requesterEmail,
    external_provider: ticket.externalProvider,
  };
}

function assertTicket(ticket: itsm.Ticket, expected: Record<string, string | null>): void {
  for (const [name, value] of Object.entries(expected)) {
    assert.equal(seen(ticket)[name], value ?? undefined, name);
  }
}

async function failure(call: Promise<unknown>, expected: Failure): Promise<TicketsError> {
  const error = await call.then(
    () => assert.fail(`It does not fail with ${expected.reason}`),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof TicketsError, String(error));
  const code = Code[error.code].replace(/(?<=[a-z])[A-Z]/g, "_$&").toUpperCase();
  assert.deepEqual({ code, reason: error.reason }, { code: expected.code, reason: expected.reason });
  assert.ok(error.requestId);
  return error;
}

/** The first event of the ticket that a watch brings, and its cursor; leaving the loop cancels the watch. */
async function firstEvent(
  id: string,
  from: { cursor?: string },
  begun: () => Promise<unknown> = async () => undefined,
): Promise<{ event: itsm.TicketEvent; cursor: string }> {
  let hasBegun = false;
  for await (const { event, cursor } of tickets.watch(from, { signal: AbortSignal.timeout(60_000) })) {
    if (!hasBegun) await begun();
    hasBegun = true;
    if (event?.ticketId === id) return { event, cursor };
  }
  assert.fail("The watch ended");
}

const say = (step: keyof Steps): void => console.log(`ok ${step}`);

const idempotencyKey = crypto.randomUUID();
const first = await tickets.create(members(steps.create.ticket), { idempotencyKey });
assertTicket(first, steps.create.expect);
assert.deepEqual(JSON.parse(first.metadataJson), steps.create.ticket.metadata);
say("create");

let replayed: string | null = null;
const onTrailer = (trailer: Headers): void => void (replayed = trailer.get("idempotent-replayed"));
const again = await tickets.create(members(steps.create.ticket), { idempotencyKey, onTrailer });
assert.deepEqual(again, first);
assert.equal(replayed, steps.repeat.expect.idempotent_replayed);
say("repeat");

await failure(tickets.create(members(steps.reuse_key.ticket), { idempotencyKey }), steps.reuse_key.expect);
say("reuse_key");

const made = [first.id];
for (let number = 0; number < steps.pages.create; number += 1) {
  made.push((await tickets.create({ subject: `Another ${number}`, description: "To fill a page." })).id);
}
const filter = { status: status(steps.pages.status), limit: steps.pages.limit };
let pages = 0;
for await (const page of tickets.list(filter).pages()) {
  pages += 1;
  assert.ok(page.tickets.length <= steps.pages.limit);
}
assert.ok(pages >= steps.pages.expect.pages_at_least);
const listed: string[] = [];
for await (const ticket of tickets.list(filter)) listed.push(ticket.id);
assert.equal(new Set(listed).size, listed.length);
assert.deepEqual(
  made.filter((id) => !listed.includes(id)),
  [],
);
say("pages");

const masked = { priority: { priority: null }, requester_email: { requesterEmail: null } };
const changes = Object.assign({}, ...steps.clear.update_mask.map((name) => masked[name])) as itsm.TicketChanges;
assertTicket(await tickets.update(first.id, changes), steps.clear.expect);
say("clear");

const invalid = await failure(tickets.create(members(steps.invalid.ticket)), steps.invalid.expect);
assert.deepEqual(Object.keys(invalid.fieldErrors), steps.invalid.expect.fields);
assert.ok(invalid.message.startsWith(steps.invalid.expect.message_begins), invalid.message);
say("invalid");

const missing = await failure(tickets.get(steps.not_found.ticket_id), steps.not_found.expect);
assert.equal(missing.message, steps.not_found.expect.message);
say("not_found");

const changed = await firstEvent(first.id, {}, () => tickets.update(first.id, { status: status(steps.watch.status) }));
assert.equal(changed.event.type, steps.watch.expect.type);
say("watch");

await tickets.update(first.id, { status: status(steps.resume.status) });
const resumed = await firstEvent(first.id, { cursor: changed.cursor });
assert.ok(steps.resume.expect.types.includes(resumed.event.type), resumed.event.type);
assert.equal(resumed.event.version, changed.event.version + 1);
say("resume");
