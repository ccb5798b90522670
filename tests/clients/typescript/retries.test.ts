/** What the client does when the service fails, with a server on a socket that answers as each test tells it to. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { constants, createServer, type Http2Server, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import { createServer as createPeer, type AddressInfo, type Socket } from "node:net";
import { after, before, beforeEach, mock, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { itsm } from "@tickets-service/client";
import { ErrorSchema, RetryInfoSchema, TicketsError } from "@tickets-service/client/errors";
import { grpc } from "@tickets-service/client/node";

type Answer = (context: HandlerContext, cursor?: string) => Promise<void> | void;

const TICKET = create(itsm.TicketSchema, { id: "8f14e45f-ceea-4e7a-9c5b-1d2f3a4b5c6d" });
let server: Http2Server;
const sessions: ServerHttp2Session[] = [];
const streams: ServerHttp2Stream[] = [];
let baseUrl: string;
let answers: Answer[];
let keys: (string | null)[];

/** One answer for each attempt; when there are no more, all is well. */
async function answer(context: HandlerContext, cursor?: string): Promise<void> {
  keys.push(context.requestHeader.get("idempotency-key"));
  await answers.shift()?.(context, cursor);
}

before(async () => {
  const handler = connectNodeAdapter({
    routes: (router) =>
      router.service(itsm.TicketService, {
        getTicket: async (_, context) => (await answer(context), { ticket: TICKET }),
        createTicket: async (_, context) => (await answer(context), { ticket: TICKET }),
        watchTickets: async function* ({ cursor }, context) {
          await answer(context, cursor);
          yield { cursor: `after ${cursor}` };
        },
      }),
  });
  server = createServer(handler).listen(0, "127.0.0.1");
  server.on("session", (session) => void sessions.push(session));
  server.on("stream", (stream) => void streams.push(stream));
  await new Promise((listening) => server.once("listening", listening));
  baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

after(() => {
  sessions.forEach((session) => session.destroy());
  server.close();
});

beforeEach(() => {
  answers = [];
  keys = [];
});

/** Without a reason it is not the service's own failure. */
function fails(code: Code, reason?: string, seconds?: number): Answer {
  const detail = { desc: ErrorSchema, value: { code: reason ?? "", message: `It is ${reason}` } };
  const retry = { desc: RetryInfoSchema, value: { retryDelay: { seconds: 0n, nanos: (seconds ?? 0) * 1e9 } } };
  const details = seconds === undefined ? [detail] : [detail, retry];
  return () => {
    throw new ConnectError("", code, {}, reason === undefined ? [] : details);
  };
}

/** Resets the stream that came last. */
function resets(code: number): Answer {
  return () => {
    streams
      .at(-1)
      ?.on("error", () => undefined)
      .close(code);
    return new Promise<void>(() => undefined);
  };
}

function client(options: Partial<ConstructorParameters<typeof itsm.Itsm>[0]> = {}): itsm.Tickets {
  return new itsm.Itsm({ transport: grpc(baseUrl), apiKey: "key", retries: { firstMs: 1 }, ...options }).tickets;
}

async function reasonOf(call: Promise<unknown>): Promise<string> {
  const error = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof TicketsError, String(error));
  return error.reason;
}

const NEW = { subject: "Printer", description: "On fire" };

test("all attempts of a write have one key, and the next write another", async () => {
  answers = [fails(Code.Unavailable, "unavailable"), fails(Code.DeadlineExceeded, "deadline_exceeded")];
  await client().create(NEW);
  await client().create(NEW);
  assert.equal(keys.length, 4);
  assert.ok(keys[0]);
  assert.deepEqual(new Set(keys.slice(0, 3)), new Set([keys[0]]));
  assert.notEqual(keys[3], keys[0]);
});

test("a key that is given is the one that is sent, and a read has none", async () => {
  await client().create(NEW, { idempotencyKey: "mine" });
  await client().get(TICKET.id);
  assert.deepEqual(keys, ["mine", null]);
});

for (const odd of ["a\nb", "\u0416", "\u00e9", "\u007f"]) {
  test(`${JSON.stringify(odd)} in a header throws without the secret`, async () => {
    const told = /^TypeError: (token|apiKey|idempotencyKey): it has characters that are not printable ASCII$/;
    const rejects = (call: Promise<unknown>) => assert.rejects(call, (error) => told.test(String(error)));
    await rejects(client({ token: odd }).get(TICKET.id));
    await rejects(client({ apiKey: odd }).get(TICKET.id));
    await rejects(client().create(NEW, { idempotencyKey: odd }));
    assert.deepEqual(keys, []);
  });
}

test("the line break at the end of a credential's file does no harm", async () => {
  await client({ apiKey: "key\n" }).get(TICKET.id);
});

for (const timeoutMs of [Infinity, 1e12]) {
  test(`a call may take ${timeoutMs} milliseconds`, async () => {
    await client({ timeoutMs }).get(TICKET.id);
    assert.equal(keys.length, 1);
  });
}

test("a retry waits as long as the service asks", async () => {
  answers = [fails(Code.ResourceExhausted, "rate_limited", 0.2)];
  const began = performance.now();
  await client().get(TICKET.id);
  assert.ok(performance.now() - began >= 200);
});

test("a call that would wait beyond its time fails at once", async () => {
  answers = [fails(Code.Unavailable, "unavailable", 0.9)];
  assert.equal(await reasonOf(client({ timeoutMs: 500 }).get(TICKET.id)), "unavailable");
  assert.equal(keys.length, 1);
});

for (const [code, reason] of [
  [Code.InvalidArgument, "validation_error"],
  [Code.Aborted, "stale"],
  [Code.Internal, "internal"],
  [Code.ResourceExhausted, "rate_limited"],
] as const) {
  test(`${reason} is no reason to try again`, async () => {
    answers = [fails(code, reason)];
    assert.equal(await reasonOf(client().get(TICKET.id)), reason);
    assert.equal(keys.length, 1);
  });
}

test("it gives up after so many attempts", async () => {
  answers = Array.from({ length: 9 }, () => fails(Code.Unavailable, "unavailable"));
  assert.equal(await reasonOf(client().create(NEW)), "unavailable");
  assert.equal(keys.length, 4);
});

test("a signal ends the wait between attempts, and its reason is what is thrown", async () => {
  answers = [fails(Code.Unavailable, "unavailable", 0.9)];
  const abort = new AbortController();
  const reason = new Error("The user has left");
  answers.unshift(fails(Code.Unavailable, "unavailable"), () => abort.abort(reason));
  await assert.rejects(client().get(TICKET.id, { signal: abort.signal }), reason);
});

test("a watch resumes after the last cursor, with a fresh token each time", async () => {
  const seen: (string | null | undefined)[] = [];
  let tokens = 0;
  const note: Answer = (context, cursor) => void seen.push(context.requestHeader.get("authorization"), cursor);
  answers = [fails(Code.Unauthenticated, "token_expired"), note, note, fails(Code.InvalidArgument, "validation_error")];
  const watch = client({ token: () => `fresh ${(tokens += 1)}` }).watch({ cursor: "0" });
  const cursors: string[] = [];
  await assert.rejects(
    async () => {
      for await (const { cursor } of watch) cursors.push(cursor);
    },
    { reason: "validation_error" },
  );
  assert.deepEqual(cursors, ["after 0", "after after 0"]);
  assert.deepEqual(seen, ["Bearer fresh 2", "0", "Bearer fresh 3", "after 0"]);
});

for (const [breaks, how] of [
  ["is reset as INTERNAL_ERROR", resets(constants.NGHTTP2_INTERNAL_ERROR)],
  ["is reset as CANCEL", resets(constants.NGHTTP2_CANCEL)],
  ["loses its connection", () => (sessions.at(-1)?.destroy(), new Promise<void>(() => undefined))],
  ["ends with an INTERNAL that is not the service's", fails(Code.Internal)],
  ["ends with an UNKNOWN that is not the service's", fails(Code.Unknown)],
  ["ends with a CANCELLED that nobody here asked for", fails(Code.Canceled)],
] as [string, Answer][]) {
  test(`a watch that ${breaks} resumes after the last cursor`, async () => {
    const seen: (string | undefined)[] = [];
    answers = [() => undefined, how, (_, cursor) => void seen.push(cursor), fails(Code.Internal, "internal")];
    const watch = client().watch({ cursor: "0" });
    assert.equal((await watch.next()).value?.cursor, "after 0");
    assert.equal((await watch.next()).value?.cursor, "after after 0");
    assert.equal(await reasonOf(watch.next()), "internal");
    assert.deepEqual(seen, ["after 0"]);
  });

  test(`a watch that ${breaks} and cannot resume is unavailable`, async () => {
    answers = [how];
    assert.equal(await reasonOf(client().watch({}, { resumeTimeoutMs: 0 }).next()), "unavailable");
  });
}

for (const code of [Code.Internal, Code.Unknown, Code.Canceled]) {
  test(`another call that ends with ${Code[code]} is not repeated`, async () => {
    answers = [fails(code)];
    await assert.rejects(client().create(NEW), { code });
    assert.equal(keys.length, 1);
  });
}

const HEADERS = 1;
const PING = 6;

/** The type of each HTTP/2 frame that comes. */
async function* frameTypes(socket: Socket): AsyncGenerator<number | undefined> {
  let bytes = Buffer.alloc(0);
  let at = 24; // after the words that a client begins with
  for await (const chunk of socket) {
    bytes = Buffer.concat([bytes, chunk as Buffer]);
    for (; bytes.length >= at + 9; at += 9 + bytes.readUIntBE(at, 3)) yield bytes[at + 3];
  }
}

async function next(types: AsyncGenerator<number | undefined>, type: number): Promise<void> {
  while ((await types.next()).value !== type);
}

test("a watch finds out that its peer has stalled", async () => {
  const sockets: Socket[] = [];
  const peer = createPeer((socket) => {
    socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])); // SETTINGS, which HTTP/2 begins with
    sockets.push(socket);
  }).listen(0, "127.0.0.1");
  await once(peer, "listening");
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    const transport = grpc(`http://127.0.0.1:${(peer.address() as AddressInfo).port}`);
    const failed = reasonOf(client({ transport }).watch({}, { resumeTimeoutMs: 0 }).next());
    const [socket] = (await once(peer, "connection")) as [Socket];
    const types = frameTypes(socket);
    await next(types, HEADERS);
    mock.timers.tick(20_000);
    await next(types, PING);
    mock.timers.tick(10_000);
    assert.equal(await failed, "unavailable");
  } finally {
    mock.timers.reset();
    sockets.forEach((socket) => socket.destroy());
    peer.close();
  }
});

test("a watch with a token that stays expired, and one that cannot resume in time, fail", async () => {
  answers = [fails(Code.Unauthenticated, "token_expired"), fails(Code.Unauthenticated, "token_expired")];
  assert.equal(await reasonOf(client().watch().next()), "token_expired");
  answers = [fails(Code.Unavailable, "unavailable", 0.9)];
  assert.equal(await reasonOf(client().watch({}, { resumeTimeoutMs: 500 }).next()), "unavailable");
});

test("a watch that is left is cancelled", async () => {
  const cancelled = new Promise<void>((resolve) => {
    answers = [
      () => undefined,
      (context) => new Promise<void>((never) => context.signal.addEventListener("abort", () => (resolve(), never()))),
    ];
  });
  let responses = 0;
  const abort = new AbortController();
  await assert.rejects(
    async () => {
      for await (const _ of client().watch({}, { signal: abort.signal })) {
        responses += 1;
        setTimeout(() => abort.abort(), 50);
      }
    },
    { name: "AbortError" },
  );
  assert.equal(responses, 1);
  await cancelled;
});
