/** Service levels of helpdesk tickets: how the SLA of a ticket stands, the tenant's policies, and its calendar. */

import type { Calendar, SlaPolicy, TicketSla } from "./gen/tickets/helpdesk/v1/sla_pb.js";
import { SlaService } from "./gen/tickets/helpdesk/v1/sla_service_pb.js";
import type * as requests from "./gen/tickets/helpdesk/v1/sla_service_pb.js";
import type { Clearing, Members, Requiring } from "./members.js";
import { always, byCursor, List, type Session } from "./session.js";
import type { CallOptions, WriteOptions } from "./session.js";

/** The members of a new SLA policy; what is left out has its documented default. */
export type NewSlaPolicy = Requiring<
  Members<requests.CreateSlaPolicyRequest>,
  "name" | "priority" | "resolutionMinutes"
>;

/** What changes: what is left out stays, and null clears. `appliesTo` replaces the old one whole; null is all types. */
export type SlaPolicyChanges = Clearing<
  Members<requests.UpdateSlaPolicyRequest, "id">,
  "description" | "firstResponseMinutes" | "appliesTo"
>;

/** What changes: what is left out stays, lists replace the old ones whole, and null clears them. */
export type CalendarChanges = Clearing<Members<requests.UpdateCalendarRequest>, "hours" | "holidays">;

/** Service levels. */
export class Sla {
  readonly policies: SlaPolicies;
  readonly calendar: TenantCalendar;

  constructor(private readonly session: Session) {
    this.policies = new SlaPolicies(session);
    this.calendar = new TenantCalendar(session);
  }

  /** Explains how a ticket's SLA stands now: what time counted, was paused and is left. Throws `not_found`. */
  async get(ticketId: string, options?: CallOptions): Promise<TicketSla> {
    const response = await this.session.call(SlaService.method.getTicketSla, { id: ticketId }, options);
    return always(response.sla);
  }
}

/** The tenant's SLA policies, for agents. */
export class SlaPolicies {
  constructor(private readonly session: Session) {}

  /** Lists the policies, newest first. */
  list(
    filter: Members<requests.ListSlaPoliciesRequest> = {},
    options: CallOptions = {},
  ): List<requests.ListSlaPoliciesResponse, SlaPolicy> {
    return new List(
      () => this.session.pages(SlaService.method.listSlaPolicies, filter, options, byCursor),
      (page) => page.slaPolicies,
    );
  }

  /** Reads a policy. Throws `not_found`. */
  async get(id: string, options?: CallOptions): Promise<SlaPolicy> {
    const response = await this.session.call(SlaService.method.getSlaPolicy, { id }, options);
    return always(response.slaPolicy);
  }

  /** Creates a policy. Throws `validation_error`, `already_exists`. */
  async create(policy: NewSlaPolicy, options?: WriteOptions): Promise<SlaPolicy> {
    const response = await this.session.call(SlaService.method.createSlaPolicy, policy, options);
    return always(response.slaPolicy);
  }

  /** Changes some members of a policy; the clocks of its unresolved tickets follow. Throws `not_found`, `already_exists`. */
  async update(id: string, changes: SlaPolicyChanges, options?: WriteOptions): Promise<SlaPolicy> {
    const response = await this.session.update(SlaService.method.updateSlaPolicy, { id }, changes, options);
    return always(response.slaPolicy);
  }
}

/** The tenant's one calendar, for agents. */
export class TenantCalendar {
  constructor(private readonly session: Session) {}

  /** Reads the calendar; there is one before anybody sets it. */
  async get(options?: CallOptions): Promise<Calendar> {
    const response = await this.session.call(SlaService.method.getCalendar, {}, options);
    return always(response.calendar);
  }

  /** Changes some members of the calendar; the clocks that go by it follow. Throws `validation_error`. */
  async update(changes: CalendarChanges, options?: WriteOptions): Promise<Calendar> {
    const response = await this.session.update(SlaService.method.updateCalendar, {}, changes, options);
    return always(response.calendar);
  }
}
