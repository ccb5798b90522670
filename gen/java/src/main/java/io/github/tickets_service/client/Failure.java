package io.github.tickets_service.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import io.github.tickets_service.errors.v1.Error;
import io.github.tickets_service.errors.v1.Issue;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.List;
import java.util.Optional;

/**
 * What a failed call says, read from the details of its status.
 *
 * @param code the status code
 * @param reason the stable reason, such as {@code not_found}; empty when the failure is not the service's own: no
 *     connection, a deadline that passed here
 * @param message what went wrong, in words for a person
 * @param issues the problems of a request that is not valid
 * @param retryAfter how long to wait before another try, where the service says so
 * @param requestId names the call in the log of the service
 */
public record Failure(
    Status.Code code,
    String reason,
    String message,
    List<Issue> issues,
    Optional<Duration> retryAfter,
    Optional<String> requestId) {
  private static final Metadata.Key<String> REQUEST_ID =
      Metadata.Key.of("x-request-id", Metadata.ASCII_STRING_MARSHALLER);

  /** Reads what a stub threw, or an observer was told. */
  public static Failure of(Throwable thrown) {
    Status status = Status.fromThrowable(thrown);
    Error error = details(thrown);
    Metadata trailers = Status.trailersFromThrowable(thrown);
    return new Failure(
        status.getCode(),
        error.getCode(),
        status.getDescription() == null ? "" : status.getDescription(),
        error.getIssuesList(),
        error.hasRetryAfter() ? Optional.of(Duration.ofSeconds(error.getRetryAfter())) : Optional.empty(),
        Optional.ofNullable(trailers).map(found -> found.get(REQUEST_ID)));
  }

  /**
   * Whether the same request may succeed later, not before {@code retryAfter}; a write that failed so may have happened:
   * repeat it under its key. A limit that says how long to wait is one too, a message that is too large is none.
   */
  public boolean isTransient() {
    return code == Status.Code.UNAVAILABLE
        || code == Status.Code.DEADLINE_EXCEEDED
        || (code == Status.Code.RESOURCE_EXHAUSTED && retryAfter.isPresent());
  }

  private static Error details(Throwable thrown) {
    com.google.rpc.Status status = StatusProto.fromThrowable(thrown);
    if (status == null) {
      return Error.getDefaultInstance();
    }
    try {
      for (Any detail : status.getDetailsList()) {
        if (detail.is(Error.class)) {
          return detail.unpack(Error.class);
        }
      }
    } catch (InvalidProtocolBufferException unreadable) {
      return Error.getDefaultInstance(); // the code and the message of the status remain
    }
    return Error.getDefaultInstance();
  }
}
