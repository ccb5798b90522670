package scenario;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.protobuf.Any;
import com.google.protobuf.Message;
import com.google.rpc.ErrorInfo;
import io.github.tickets_service.client.Failure;
import io.github.tickets_service.itsm.v1.Ticket;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.Map;
import java.util.Objects;

/** What is expected, and that it is seen to be so. */
final class See {
  private See() {}

  static void that(boolean isSo, String otherwise) {
    if (!isSo) {
      throw new AssertionError(otherwise);
    }
  }

  static void same(String what, Object seen, Object expected) {
    that(Objects.equals(seen, expected), what + " is " + seen + ", not " + expected);
  }

  /** The members that are named have these values; null is absent. */
  static void members(Ticket ticket, JsonObject expected) {
    for (Map.Entry<String, JsonElement> member : expected.entrySet()) {
      String value = member.getValue().isJsonNull() ? null : member.getValue().getAsString();
      String name = member.getKey();
      switch (name) {
        case "subject" -> same(name, ticket.getSubject(), value);
        case "status" -> same(name, ticket.getStatus(), Words.status(value));
        case "priority" -> same(name, ticket.hasPriority() ? ticket.getPriority() : null, Words.priority(value));
        case "requester_email" -> same(name, ticket.hasRequesterEmail() ? ticket.getRequesterEmail() : null, value);
        case "external_provider" ->
            same(name, ticket.hasExternalProvider() ? ticket.getExternalProvider() : null, value);
        default -> throw new AssertionError("a member that the program does not know: " + name);
      }
    }
  }

  /** That a call fails with this code, reason and message; returns how. */
  static StatusRuntimeException failure(Runnable call, JsonObject expected) throws Exception {
    StatusRuntimeException thrown = thrown(call);
    String reason = expected.get("reason").getAsString();
    Failure failure = Failure.of(thrown);
    same("code", failure.code().name(), expected.get("code").getAsString());
    same("reason", detail(thrown, ErrorInfo.class).getReason(), reason);
    same("reason in Error", failure.reason(), reason);
    if (expected.has("message")) {
      same("message", failure.message(), expected.get("message").getAsString());
    }
    if (expected.has("message_begins")) {
      that(failure.message().startsWith(expected.get("message_begins").getAsString()), failure.message());
    }
    that(failure.requestId().isPresent(), "no request id");
    return thrown;
  }

  static <T extends Message> T detail(StatusRuntimeException thrown, Class<T> type) throws Exception {
    for (Any detail : StatusProto.fromThrowable(thrown).getDetailsList()) {
      if (detail.is(type)) {
        return detail.unpack(type);
      }
    }
    throw new AssertionError("no " + type.getSimpleName() + " in the details");
  }

  private static StatusRuntimeException thrown(Runnable call) {
    try {
      call.run();
    } catch (StatusRuntimeException thrown) {
      return thrown;
    }
    throw new AssertionError("it did not fail");
  }
}
