/** The handoff API: `tickets` in the projects that the caller is a member of. Every call can throw TicketsError. */

import type { Ticket, TicketEvent } from "./gen/tickets/handoff/v1/ticket_pb.js";
import { TicketService } from "./gen/tickets/handoff/v1/ticket_service_pb.js";
import type * as requests from "./gen/tickets/handoff/v1/ticket_service_pb.js";
import type { Clearing, Members, Requiring } from "./members.js";
import { always, byCursor, List, Session } from "./session.js";
import type { CallOptions, ClientOptions, WatchOptions, WriteOptions } from "./session.js";

export * from "./gen/tickets/handoff/v1/ticket_pb.js";
export * from "./gen/tickets/handoff/v1/ticket_service_pb.js";

/** The members of a new ticket; what is left out has its documented default. */
export type NewTicket = Requiring<
  Members<requests.CreateTicketRequest, "projectId">,
  "title" | "description" | "requestType"
>;

/** The change of one role; what is left out stays, and null clears. */
export type RoleChange = Clearing<
  Requiring<Members<requests.RoleChange>, "role" | "status">,
  "assigneeNote" | "assigneeUserId" | "blockingReason" | "agentOrigin"
>;

/**
 * What changes: what is left out stays, and null clears. With `updatedAt` the ticket must not have changed since: null is
 * that of a ticket that never has. (Give it as it was read: a Date has no microseconds.)
 */
export type TicketChanges = Clearing<
  Members<requests.UpdateTicketRequest, "projectId" | "ticketId" | "roleStatus">,
  | "evidenceJson"
  | "suggestedResolution"
  | "implementationNotes"
  | "resolutionNote"
  | "resolutionType"
  | "milestoneId"
  | "githubIssueNumber"
  | "updatedAt"
> & { readonly roleStatus?: RoleChange };

/** What a bulk update does, and to which tickets. */
export type BulkUpdate = Requiring<Members<requests.BulkUpdateTicketsRequest, "projectId">, "action" | "ticketIds">;

/** The outcome of a commit. */
export type Deployment = Requiring<
  Members<requests.ReportDeploymentRequest, "projectId" | "ticketId">,
  "mergeSha" | "outcome"
>;

/** The resources of the handoff API. */
export class Handoff {
  readonly tickets: Tickets;

  constructor(client: ClientOptions | Session) {
    this.tickets = new Tickets(client instanceof Session ? client : new Session(client));
  }
}

/** Handoff tickets, each by its UUID, its number or its `ticketRef`. */
export class Tickets {
  constructor(private readonly session: Session) {}

  /** Lists the tickets of all the caller's projects, newest first. Throws `validation_error`. */
  list(
    filter: Members<requests.ListTicketsRequest> = {},
    options: CallOptions = {},
  ): List<requests.ListTicketsResponse, Ticket> {
    return new List(
      () => this.session.pages(TicketService.method.listTickets, filter, options, byCursor),
      (page) => page.tickets,
    );
  }

  /** Lists the tickets of one project, newest first. Throws `forbidden`, `validation_error`. */
  listProject(
    projectId: string,
    filter: Members<requests.ListProjectTicketsRequest, "projectId"> = {},
    options: CallOptions = {},
  ): List<requests.ListProjectTicketsResponse, Ticket> {
    const { listProjectTickets } = TicketService.method;
    return new List(
      () => this.session.pages(listProjectTickets, { projectId, ...filter }, options, byCursor),
      (page) => page.tickets,
    );
  }

  /** Reads a ticket. Throws `forbidden`, `not_found`. */
  async get(projectId: string, ticketId: string, options?: CallOptions): Promise<Ticket> {
    const response = await this.session.call(TicketService.method.getTicket, { projectId, ticketId }, options);
    return always(response.ticket);
  }

  /** Creates a ticket in a project. Throws `forbidden`, `validation_error`. */
  async create(projectId: string, ticket: NewTicket, options?: WriteOptions): Promise<Ticket> {
    const response = await this.session.call(TicketService.method.createTicket, { projectId, ...ticket }, options);
    return always(response.ticket);
  }

  /**
   * Changes some members of a ticket. Throws `forbidden`, `not_found`, `validation_error`, `roles_incomplete`,
   * `invalid_transition`, `stale`.
   */
  async update(projectId: string, ticketId: string, changes: TicketChanges, options?: WriteOptions): Promise<Ticket> {
    const ids = { projectId, ticketId };
    const response = await this.session.update(TicketService.method.updateTicket, ids, changes, options);
    return always(response.ticket);
  }

  /** Moves or closes up to a hundred tickets, each on its own. Throws `forbidden`, `validation_error`. */
  async bulk(
    projectId: string,
    update: BulkUpdate,
    options?: WriteOptions,
  ): Promise<requests.BulkUpdateTicketsResponse> {
    return this.session.call(TicketService.method.bulkUpdateTickets, { projectId, ...update }, options);
  }

  /** Reports the outcome of a ticket's commit. Throws `forbidden`, `not_found`, `validation_error`. */
  async reportDeployment(
    projectId: string,
    ticketId: string,
    deployment: Deployment,
    options?: WriteOptions,
  ): Promise<Ticket> {
    const members = { projectId, ticketId, ...deployment };
    const response = await this.session.call(TicketService.method.reportDeployment, members, options);
    return always(response.ticket);
  }

  /** Lists a ticket's history, oldest first. Throws `forbidden`, `not_found`. */
  events(
    projectId: string,
    ticketId: string,
    options: CallOptions = {},
  ): List<requests.ListTicketEventsResponse, TicketEvent> {
    const { listTicketEvents } = TicketService.method;
    return new List(
      () => this.session.pages(listTicketEvents, { projectId, ticketId }, options, byCursor),
      (page) => page.events,
    );
  }

  /**
   * Watches every change of a project's tickets as it happens, from now on or after a cursor, until the loop over it is
   * left. The first response comes at once and says where the watch begins; one without an event is a heartbeat. Throws
   * `unavailable` when it could not resume, `token_expired` when there is no fresh token, and `forbidden`.
   */
  watch(
    projectId: string,
    from: Members<requests.WatchTicketsRequest, "projectId"> = {},
    options?: WatchOptions,
  ): AsyncGenerator<requests.WatchTicketsResponse, void, void> {
    const members = { projectId, ...from };
    return this.session.watch(TicketService.method.watchTickets, members, ({ cursor }) => cursor, options);
  }
}
