/** For Node: over gRPC. */

import type { Transport } from "@connectrpc/connect";
import { createGrpcTransport, type GrpcTransportOptions } from "@connectrpc/connect-node";

/** Calls a service, or a gateway, over gRPC: `http://127.0.0.1:50051`, or an `https` address. */
export function grpc(baseUrl: string, options: Omit<GrpcTransportOptions, "baseUrl"> = {}): Transport {
  return createGrpcTransport({ ...options, baseUrl });
}
