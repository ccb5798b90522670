/** The ITSM API: `tickets` and `webhooks` of the account whose API key calls. Every call can throw TicketsError. */

import { TicketService } from "./gen/tickets/itsm/v1/ticket_service_pb.js";
import type * as requests from "./gen/tickets/itsm/v1/ticket_service_pb.js";
import type { Ticket, TicketEvent } from "./gen/tickets/itsm/v1/ticket_pb.js";
import type { Webhook, WebhookDelivery } from "./gen/tickets/itsm/v1/webhook_pb.js";
import { WebhookService } from "./gen/tickets/itsm/v1/webhook_service_pb.js";
import type * as webhookRequests from "./gen/tickets/itsm/v1/webhook_service_pb.js";
import type { Clearing, Members, Requiring } from "./members.js";
import { always, byCursor, List, Session } from "./session.js";
import type { CallOptions, ClientOptions, WatchOptions, WriteOptions } from "./session.js";

export * from "./gen/tickets/itsm/v1/ticket_pb.js";
export * from "./gen/tickets/itsm/v1/ticket_service_pb.js";
export * from "./gen/tickets/itsm/v1/webhook_pb.js";
export * from "./gen/tickets/itsm/v1/webhook_service_pb.js";

/** The members of a new ticket; what is left out has its documented default. */
export type NewTicket = Requiring<Members<requests.CreateTicketRequest>, "subject" | "description">;

/** What changes: what is left out stays, and null clears. With `etag`, only while the ticket has that one. */
export type TicketChanges = Clearing<Members<requests.UpdateTicketRequest, "ticketId">, "priority" | "requesterEmail">;

/** Which tickets are listed; `limit` is how many a page has. */
export type TicketFilter = Members<requests.ListTicketsRequest>;

export type NewWebhook = Requiring<Members<webhookRequests.CreateWebhookRequest>, "url" | "events">;

/** What changes: what is left out stays; `events` replaces the old ones whole. */
export type WebhookChanges = Members<webhookRequests.UpdateWebhookRequest, "webhookId">;

/** The resources of the ITSM API. */
export class Itsm {
  readonly tickets: Tickets;
  readonly webhooks: Webhooks;

  constructor(client: ClientOptions | Session) {
    const session = client instanceof Session ? client : new Session(client);
    this.tickets = new Tickets(session);
    this.webhooks = new Webhooks(session);
  }
}

/** ITSM tickets. */
export class Tickets {
  constructor(private readonly session: Session) {}

  /** Creates a ticket. Throws `validation_error`, `provider_rejected`. */
  async create(ticket: NewTicket, options?: WriteOptions): Promise<Ticket> {
    const response = await this.session.call(TicketService.method.createTicket, ticket, options);
    return always(response.ticket);
  }

  /** Reads a ticket. Throws `not_found`; `validation_error` when the id is no UUID. */
  async get(ticketId: string, options?: CallOptions): Promise<Ticket> {
    const response = await this.session.call(TicketService.method.getTicket, { ticketId }, options);
    return always(response.ticket);
  }

  /**
   * Lists the account's tickets, newest first, each once; its pages have the `total`. Tickets that leave the filter while
   * pages are read can hide others from them.
   */
  list(filter: TicketFilter = {}, options: CallOptions = {}): List<requests.ListTicketsResponse, Ticket> {
    const { listTickets } = TicketService.method;
    const pages = () => this.session.pages(listTickets, filter, options, byOffset);
    return new List(pages, (page) => page.tickets, withoutDuplicates);
  }

  /** Changes some members of a ticket. Throws `not_found`, `validation_error`, `stale`. */
  async update(ticketId: string, changes: TicketChanges, options?: WriteOptions): Promise<Ticket> {
    const response = await this.session.update(TicketService.method.updateTicket, { ticketId }, changes, options);
    return always(response.ticket);
  }

  /** Lists a ticket's history, oldest first. Throws `not_found`, `validation_error`. */
  events(ticketId: string, options: CallOptions = {}): List<requests.ListTicketEventsResponse, TicketEvent> {
    const { listTicketEvents } = TicketService.method;
    return new List(
      () => this.session.pages(listTicketEvents, { ticketId }, options, byCursor),
      (page) => page.events,
    );
  }

  /**
   * Watches every change of the account's tickets as it happens, from now on or after a cursor, until the loop over it is
   * left. The first response comes at once and says where the watch begins; one without an event is a heartbeat. Throws
   * `unavailable` when it could not resume, and `unauthenticated` when the key is revoked.
   */
  watch(
    from: Members<requests.WatchTicketsRequest> = {},
    options?: WatchOptions,
  ): AsyncGenerator<requests.WatchTicketsResponse, void, void> {
    return this.session.watch(TicketService.method.watchTickets, from, ({ cursor }) => cursor, options);
  }
}

/** Webhooks of ITSM tickets. */
export class Webhooks {
  constructor(private readonly session: Session) {}

  /** Registers a webhook; only this response has its secret. Throws `validation_error`, `url_refused`, `unknown_event`. */
  async create(webhook: NewWebhook, options?: WriteOptions): Promise<Webhook> {
    const response = await this.session.call(WebhookService.method.createWebhook, webhook, options);
    return always(response.webhook);
  }

  /** Lists the account's webhooks, oldest first: at most 20. */
  async list(options?: CallOptions): Promise<Webhook[]> {
    const response = await this.session.call(WebhookService.method.listWebhooks, {}, options);
    return response.webhooks;
  }

  /** Changes some members of a webhook; switched on again, it resumes where it stopped. Throws `not_found`. */
  async update(webhookId: string, changes: WebhookChanges, options?: WriteOptions): Promise<Webhook> {
    const response = await this.session.update(WebhookService.method.updateWebhook, { webhookId }, changes, options);
    return always(response.webhook);
  }

  /** Deletes a webhook with its queue and its log. Throws `not_found`. */
  async delete(webhookId: string, options?: WriteOptions): Promise<void> {
    await this.session.call(WebhookService.method.deleteWebhook, { webhookId }, options);
  }

  /** Gives a webhook a new secret, which only this response has. Throws `not_found`. */
  async rotateSecret(webhookId: string, options?: WriteOptions): Promise<Webhook> {
    const response = await this.session.call(WebhookService.method.rotateWebhookSecret, { webhookId }, options);
    return always(response.webhook);
  }

  /** Lists the last attempts to deliver, newest first: at most 100. Throws `not_found`. */
  async deliveries(webhookId: string, options?: CallOptions): Promise<WebhookDelivery[]> {
    const response = await this.session.call(WebhookService.method.listWebhookDeliveries, { webhookId }, options);
    return response.deliveries;
  }

  /** Sends the message of an attempt once more. Throws `not_found`. */
  async replay(webhookId: string, deliveryId: string, options?: WriteOptions): Promise<WebhookDelivery> {
    const members = { webhookId, deliveryId };
    const response = await this.session.call(WebhookService.method.replayWebhookDelivery, members, options);
    return always(response.delivery);
  }
}

function byOffset({ tickets, offset, total }: requests.ListTicketsResponse): object | undefined {
  const next = offset + BigInt(tickets.length);
  return tickets.length > 0 && next < total ? { offset: next } : undefined;
}

/** Tickets that are created meanwhile push others onto the next page again. */
function withoutDuplicates(): (ticket: Ticket) => boolean {
  let last: Ticket | undefined;
  return (ticket) => {
    const isNew = last === undefined || isBefore(ticket, last);
    last = isNew ? ticket : last;
    return isNew;
  };
}

/** Whether a ticket is older than another one; of those of one instant, whether its id is the lower one. */
function isBefore(ticket: Ticket, other: Ticket): boolean {
  const [at, than] = [always(ticket.createdAt), always(other.createdAt)];
  const difference = Number(at.seconds - than.seconds) || at.nanos - than.nanos;
  return difference === 0 ? ticket.id < other.id : difference < 0;
}
