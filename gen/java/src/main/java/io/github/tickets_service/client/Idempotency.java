package io.github.tickets_service.client;

import io.grpc.ClientInterceptor;
import io.grpc.Metadata;
import io.grpc.stub.MetadataUtils;

/** Keys that make a write safe to repeat: {@code stub.withInterceptors(Idempotency.key(key))}. */
public final class Idempotency {
  private static final Metadata.Key<String> KEY =
      Metadata.Key.of("idempotency-key", Metadata.ASCII_STRING_MARSHALLER);
  private static final Metadata.Key<String> REPLAYED =
      Metadata.Key.of("idempotent-replayed", Metadata.ASCII_STRING_MARSHALLER);

  private Idempotency() {}

  /**
   * Sends this key with every call of the stub: use it for one request only, and for all attempts of that.
   *
   * @param key 1–255 printable ASCII characters
   */
  public static ClientInterceptor key(String key) {
    Metadata headers = new Metadata();
    headers.put(KEY, Plain.text("The idempotency key", key));
    return MetadataUtils.newAttachHeadersInterceptor(headers);
  }

  /** Whether these trailers, caught with {@link MetadataUtils}, say that the answer is that of an earlier attempt. */
  public static boolean replayed(Metadata trailers) {
    return "true".equals(trailers.get(REPLAYED));
  }
}
