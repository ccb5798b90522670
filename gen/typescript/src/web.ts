/** For browsers, and whatever else has fetch: over grpc-web. */

import type { Transport } from "@connectrpc/connect";
import { createGrpcWebTransport, type GrpcWebTransportOptions } from "@connectrpc/connect-web";

/** Calls a gateway over grpc-web; a page of another origin needs that the gateway allows its origin. */
export function grpcWeb(baseUrl: string, options: Omit<GrpcWebTransportOptions, "baseUrl"> = {}): Transport {
  return createGrpcWebTransport({ ...options, baseUrl });
}
