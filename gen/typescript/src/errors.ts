/** What calls fail with. */

import { Code, ConnectError } from "@connectrpc/connect";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { ErrorSchema, type Issue } from "./gen/tickets/errors/v1/error_pb.js";

// For those who read the details of a status themselves.
export { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
export { ErrorSchema, type Issue } from "./gen/tickets/errors/v1/error_pb.js";

/** The reasons that the service gives: stable, and fit for a `switch`. `tickets.errors.v1.Error` says what each means. */
export type Reason =
  | "already_exists"
  | "cursor_expired"
  | "deadline_exceeded"
  | "forbidden"
  | "idempotency_mismatch"
  | "internal"
  | "invalid_token"
  | "invalid_transition"
  | "missing_scope"
  | "not_found"
  | "payload_too_large"
  | "provider_rejected"
  | "rate_limited"
  | "reconnect_required"
  | "roles_incomplete"
  | "stale"
  | "suspended"
  | "token_expired"
  | "unauthenticated"
  | "unavailable"
  | "unknown_event"
  | "unsupported_media_type"
  | "url_refused"
  | "validation_error";

/** A call failed. */
export class TicketsError extends Error {
  override readonly name = "TicketsError";
  /** The gRPC status. */
  readonly code: Code;
  /** Why: stable. The status in lower case for a failure that names no reason; later versions may have more. */
  readonly reason: Reason | (string & {});
  /** The problems of a request that is not valid, in order: the first ones, at most 20. */
  readonly issues: readonly Issue[];
  /** For each member with a problem its first message; the paths are dotted, such as `title` or `roles.1`. */
  readonly fieldErrors: Readonly<Record<string, string>>;
  /** The seconds to wait before another attempt, where the service says so. */
  readonly retryAfter: number | undefined;
  /** Finds the call in the service's log. */
  readonly requestId: string | undefined;

  /** The error of a call that failed, or `code` for one whose connection broke. */
  constructor(failed: ConnectError, code: Code = failed.code) {
    const [detail] = failed.findDetails(ErrorSchema);
    const [retry] = failed.findDetails(RetryInfoSchema);
    super(detail?.message || failed.rawMessage, { cause: failed });
    this.code = code;
    this.reason = detail?.code || wordOf(code);
    this.issues = detail?.issues ?? [];
    this.fieldErrors = detail?.fieldErrors ?? {};
    this.retryAfter = retry?.retryDelay ? secondsOf(retry.retryDelay) : detail?.retryAfter;
    this.requestId = failed.metadata.get("x-request-id") ?? undefined;
  }

  /** The error for whatever a transport has thrown, of a call or of a watch. */
  static from(thrown: unknown, isWatch = false): TicketsError {
    const failed = ConnectError.from(thrown);
    const isAway = isBroken(failed) || (isWatch && isReset(failed));
    return new TicketsError(failed, isAway ? Code.Unavailable : failed.code);
  }
}

/** `NotFound` is `not_found`. */
function wordOf(code: Code): string {
  return Code[code].replace(/(?<=[a-z])[A-Z]/g, "_$&").toLowerCase();
}

function secondsOf(delay: Duration): number {
  return Number(delay.seconds) + delay.nanos / 1e9;
}

/**
 * Whether the connection broke: no status came, and the transport has a word of its own for why. It may be `Aborted` or
 * `Internal`, which from the service mean something else.
 */
function isBroken(failed: ConnectError): boolean {
  return !failed.metadata.has("grpc-status") && (failed.code === Code.Aborted || isOfNetwork(failed.cause));
}

/**
 * Whether a stream was reset, by a proxy when the process behind it has died, or with its connection: these are the words
 * for it. The service's own failures with such a status have details.
 */
function isReset(failed: ConnectError): boolean {
  const isWord = [Code.Internal, Code.Unknown, Code.Canceled].includes(failed.code);
  return isWord && failed.findDetails(ErrorSchema).length === 0;
}

/** Node's errors of sockets and streams have a code that is a word; fetch fails with a TypeError. */
function isOfNetwork(cause: unknown): boolean {
  return cause instanceof Error && (cause instanceof TypeError || ("code" in cause && typeof cause.code === "string"));
}
