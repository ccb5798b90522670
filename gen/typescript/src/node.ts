/** For Node: over gRPC. */

import type { Transport } from "@connectrpc/connect";
import { createGrpcTransport, type GrpcTransportOptions } from "@connectrpc/connect-node";

// While there are calls, pings find a peer that has stalled, for which a watch would wait for ever. The service permits
// two a second.
const PINGS = { pingIntervalMs: 20_000, pingTimeoutMs: 10_000 };

/** Calls a service, or a gateway, over gRPC: `http://127.0.0.1:50051`, or an `https` address. */
export function grpc(baseUrl: string, options: Omit<GrpcTransportOptions, "baseUrl"> = {}): Transport {
  return createGrpcTransport({ ...PINGS, ...options, baseUrl });
}
