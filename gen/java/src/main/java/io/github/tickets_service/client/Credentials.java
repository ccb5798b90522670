package io.github.tickets_service.client;

import io.grpc.CallCredentials;
import io.grpc.Metadata;
import io.grpc.Status;
import java.util.concurrent.Executor;
import java.util.function.Supplier;

/** Who calls: {@code stub.withCallCredentials(Credentials.apiKey(key))}. */
public final class Credentials extends CallCredentials {
  private final Metadata.Key<String> name;
  private final Supplier<String> value;

  private Credentials(String name, Supplier<String> value) {
    this.name = Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
    this.value = () -> Plain.text("The credential", value.get());
  }

  /** An API key, for the services of {@code io.github.tickets_service.itsm.v1}. */
  public static CallCredentials apiKey(String key) {
    return new Credentials("x-api-key", () -> key);
  }

  /** A bearer token, for the services of the handoff, helpdesk and admin packages. */
  public static CallCredentials token(String token) {
    return token(() -> token);
  }

  /** A bearer token that is asked for at each call, so that it can be a fresh one. */
  public static CallCredentials token(Supplier<String> token) {
    return new Credentials("authorization", () -> "Bearer " + token.get());
  }

  @Override
  public void applyRequestMetadata(RequestInfo call, Executor executor, MetadataApplier applier) {
    executor.execute(
        () -> {
          Metadata headers = new Metadata();
          try {
            headers.put(name, value.get());
          } catch (RuntimeException failure) {
            applier.fail(Status.UNAUTHENTICATED.withDescription(why(failure)).withCause(failure));
            return;
          }
          applier.apply(headers);
        });
  }

  private static String why(RuntimeException failure) {
    return failure.getMessage() == null ? "No credentials" : "No credentials: " + failure.getMessage();
  }
}
