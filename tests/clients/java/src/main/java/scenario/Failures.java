package scenario;

import com.google.protobuf.Any;
import com.google.rpc.Code;
import io.github.tickets_service.client.Failure;
import io.github.tickets_service.client.Idempotency;
import io.github.tickets_service.errors.v1.Error;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.List;
import java.util.Optional;

/** What the artifact makes of failures that the scenario does not meet. */
final class Failures {
  private Failures() {}

  public static void main(String[] arguments) {
    Error error = Error.newBuilder().setCode("rate_limited").setRetryAfter(7).build();
    Failure limited =
        Failure.of(
            StatusProto.toStatusRuntimeException(
                com.google.rpc.Status.newBuilder()
                    .setCode(Code.RESOURCE_EXHAUSTED_VALUE)
                    .setMessage("Slow down")
                    .addDetails(Any.pack(error))
                    .build()));
    See.same("code", limited.code(), Status.Code.RESOURCE_EXHAUSTED);
    See.same("reason", limited.reason(), "rate_limited");
    See.same("pause", limited.retryAfter(), Optional.of(Duration.ofSeconds(7)));
    See.that(limited.isTransient(), "a limit that says how long to wait is for ever");
    Failure tooLarge = Failure.of(Status.RESOURCE_EXHAUSTED.withDescription("too large").asRuntimeException());
    See.that(!tooLarge.isTransient(), "what is too large may fit later");

    Failure onTheWay = Failure.of(Status.UNAVAILABLE.withDescription("no connection").asRuntimeException());
    See.same("reason", onTheWay.reason(), "");
    See.same("pause", onTheWay.retryAfter(), Optional.empty());
    See.same("request", onTheWay.requestId(), Optional.empty());
    See.that(onTheWay.isTransient(), "no connection is for ever");
    for (String key : List.of("\u0416", "a\nb", "a\u007f")) {
      try {
        Idempotency.key(key);
        See.that(false, "a key that no header can carry");
      } catch (IllegalArgumentException refused) {
        See.that(!refused.getMessage().contains(key), "it is quoted");
      }
    }
    Idempotency.key(" ~");
    See.same("code of what is no status", Failure.of(new IllegalStateException()).code(), Status.Code.UNKNOWN);
  }
}
