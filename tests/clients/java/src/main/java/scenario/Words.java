package scenario;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import io.github.tickets_service.itsm.v1.CreateTicketRequest;
import io.github.tickets_service.itsm.v1.Priority;
import io.github.tickets_service.itsm.v1.Status;
import java.util.List;
import java.util.Locale;

/** The words of the scenario, as messages. */
final class Words {
  private Words() {}

  static Status status(String word) {
    return Status.valueOf("STATUS_" + word.toUpperCase(Locale.ROOT));
  }

  static Priority priority(String word) {
    return word == null ? null : Priority.valueOf("PRIORITY_" + word.toUpperCase(Locale.ROOT));
  }

  static List<String> list(JsonArray words) {
    return words.asList().stream().map(JsonElement::getAsString).toList();
  }

  static CreateTicketRequest creation(JsonObject ticket) {
    CreateTicketRequest.Builder request =
        CreateTicketRequest.newBuilder()
            .setSubject(ticket.get("subject").getAsString())
            .setDescription(ticket.get("description").getAsString());
    if (ticket.has("priority")) {
      request.setPriority(priority(ticket.get("priority").getAsString()));
    }
    if (ticket.has("requester_email")) {
      request.setRequesterEmail(ticket.get("requester_email").getAsString());
    }
    if (ticket.has("metadata")) {
      request.setMetadataJson(ticket.get("metadata").toString());
    }
    return request.build();
  }
}
