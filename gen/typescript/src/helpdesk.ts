/** The helpdesk API: `tickets` of the caller's tenant, their `comments`, and their `sla`. Every call can throw TicketsError. */

import type { Comment } from "./gen/tickets/helpdesk/v1/comment_pb.js";
import { CommentService, type ListCommentsResponse } from "./gen/tickets/helpdesk/v1/comment_service_pb.js";
import type { Ticket, TicketEvent } from "./gen/tickets/helpdesk/v1/ticket_pb.js";
import { TicketService } from "./gen/tickets/helpdesk/v1/ticket_service_pb.js";
import type * as requests from "./gen/tickets/helpdesk/v1/ticket_service_pb.js";
import type { Clearing, Members, Requiring } from "./members.js";
import { always, byCursor, List, Session } from "./session.js";
import type { CallOptions, ClientOptions, WatchOptions, WriteOptions } from "./session.js";
import { Sla } from "./sla.js";

export * from "./gen/tickets/helpdesk/v1/comment_pb.js";
export * from "./gen/tickets/helpdesk/v1/comment_service_pb.js";
export * from "./gen/tickets/helpdesk/v1/sla_pb.js";
export * from "./gen/tickets/helpdesk/v1/sla_service_pb.js";
export * from "./gen/tickets/helpdesk/v1/ticket_pb.js";
export * from "./gen/tickets/helpdesk/v1/ticket_service_pb.js";
export * from "./sla.js";

/** The members of a new ticket; what is left out has its documented default. */
export type NewTicket = Requiring<Members<requests.CreateTicketRequest>, "title">;

/** What changes: what is left out stays, and null clears. With `etag`, only while the ticket has that one. */
export type TicketChanges = Clearing<
  Members<requests.UpdateTicketRequest, "id">,
  | "description"
  | "category"
  | "assignedToId"
  | "teamId"
  | "slaPolicy"
  | "dueAt"
  | "relatedAssetId"
  | "relatedVulnerabilityId"
  | "tagsJson"
>;

/** Which tickets are listed, and in which order; `limit` is how many a page has. */
export type TicketFilter = Members<requests.ListTicketsRequest>;

/** The resources of the helpdesk API. */
export class Helpdesk {
  readonly tickets: Tickets;
  readonly comments: Comments;
  readonly sla: Sla;

  constructor(client: ClientOptions | Session) {
    const session = client instanceof Session ? client : new Session(client);
    this.tickets = new Tickets(session);
    this.comments = new Comments(session);
    this.sla = new Sla(session);
  }
}

/** Helpdesk tickets, each by its id or its number. */
export class Tickets {
  constructor(private readonly session: Session) {}

  /** Lists the tickets that the caller may see, newest first unless sorted. Throws `validation_error`. */
  list(filter: TicketFilter = {}, options: CallOptions = {}): List<requests.ListTicketsResponse, Ticket> {
    return new List(
      () => this.session.pages(TicketService.method.listTickets, filter, options, byCursor),
      (page) => page.tickets,
    );
  }

  /** Reads a ticket. Throws `not_found`, also for a deleted one without `includeDeleted`. */
  async get(
    id: string,
    { includeDeleted, ...options }: CallOptions & { includeDeleted?: boolean } = {},
  ): Promise<Ticket> {
    const response = await this.session.call(TicketService.method.getTicket, { id, includeDeleted }, options);
    return always(response.ticket);
  }

  /** Creates a ticket. Throws `validation_error`; `forbidden` for members that only agents set. */
  async create(ticket: NewTicket, options?: WriteOptions): Promise<Ticket> {
    const response = await this.session.call(TicketService.method.createTicket, ticket, options);
    return always(response.ticket);
  }

  /** Changes some members of a ticket. Throws `not_found`, `forbidden`, `validation_error`, `stale`. */
  async update(id: string, changes: TicketChanges, options?: WriteOptions): Promise<Ticket> {
    const response = await this.session.update(TicketService.method.updateTicket, { id }, changes, options);
    return always(response.ticket);
  }

  /** Closes a ticket; a closed one stays as it is. Throws `not_found`, `forbidden`, `validation_error`, `stale`. */
  async close(
    id: string,
    how: Members<requests.CloseTicketRequest, "id"> = {},
    options?: WriteOptions,
  ): Promise<Ticket> {
    const response = await this.session.call(TicketService.method.closeTicket, { id, ...how }, options);
    return always(response.ticket);
  }

  /** Deletes a ticket, softly; a deleted one stays as it is. Throws `not_found`, `forbidden`, `stale`. */
  async delete(
    id: string,
    condition: Members<requests.DeleteTicketRequest, "id"> = {},
    options?: WriteOptions,
  ): Promise<Ticket> {
    const response = await this.session.call(TicketService.method.deleteTicket, { id, ...condition }, options);
    return always(response.ticket);
  }

  /** Restores a deleted ticket; one that is not stays as it is. Throws `not_found`, `forbidden`, `stale`. */
  async restore(
    id: string,
    condition: Members<requests.RestoreTicketRequest, "id"> = {},
    options?: WriteOptions,
  ): Promise<Ticket> {
    const response = await this.session.call(TicketService.method.restoreTicket, { id, ...condition }, options);
    return always(response.ticket);
  }

  /** Lists a ticket's history, oldest first; that of a deleted one too. Throws `not_found`. */
  events(id: string, options: CallOptions = {}): List<requests.ListTicketEventsResponse, TicketEvent> {
    return new List(
      () => this.session.pages(TicketService.method.listTicketEvents, { id }, options, byCursor),
      (page) => page.events,
    );
  }

  /**
   * Watches every event of the tickets that the caller may see as it happens, from now on or after a cursor, until the
   * loop over it is left. The first response comes at once and says where the watch begins; one without an event is a
   * heartbeat. Throws `unavailable` when it could not resume, and `token_expired` when there is no fresh token.
   */
  watch(
    from: Members<requests.WatchTicketsRequest> = {},
    options?: WatchOptions,
  ): AsyncGenerator<requests.WatchTicketsResponse, void, void> {
    return this.session.watch(TicketService.method.watchTickets, from, ({ cursor }) => cursor, options);
  }
}

/** Comments on tickets. */
export class Comments {
  constructor(private readonly session: Session) {}

  /** Comments on a ticket; internally for agents, by agents. Throws `not_found`, `forbidden`, `validation_error`. */
  async create(
    ticketId: string,
    body: string,
    { internal, ...options }: WriteOptions & { internal?: boolean } = {},
  ): Promise<Comment> {
    const members = { id: ticketId, body, internal };
    const response = await this.session.call(CommentService.method.createComment, members, options);
    return always(response.comment);
  }

  /** Edits a comment of the caller's own. Throws `not_found`, `forbidden`, `validation_error`. */
  async update(ticketId: string, commentId: string, body: string, options?: WriteOptions): Promise<Comment> {
    const members = { id: ticketId, commentId, body };
    const response = await this.session.call(CommentService.method.updateComment, members, options);
    return always(response.comment);
  }

  /** Lists a ticket's comments, oldest first. Throws `not_found`. */
  list(ticketId: string, options: CallOptions = {}): List<ListCommentsResponse, Comment> {
    return new List(
      () => this.session.pages(CommentService.method.listComments, { id: ticketId }, options, byCursor),
      (page) => page.comments,
    );
  }
}
