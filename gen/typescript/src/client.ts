/** The client of all three APIs. */

import { Handoff } from "./handoff.js";
import { Helpdesk } from "./helpdesk.js";
import { Itsm } from "./itsm.js";
import { type ClientOptions, Session } from "./session.js";

/** `client.helpdesk.tickets.create(…)`: the three APIs over one transport. */
export class TicketsClient {
  readonly handoff: Handoff;
  readonly helpdesk: Helpdesk;
  readonly itsm: Itsm;

  constructor(options: ClientOptions) {
    const session = new Session(options);
    this.handoff = new Handoff(session);
    this.helpdesk = new Helpdesk(session);
    this.itsm = new Itsm(session);
  }
}
