package scenario;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.FieldMask;
import com.google.rpc.BadRequest;
import io.github.tickets_service.client.Failure;
import io.github.tickets_service.client.Idempotency;
import io.github.tickets_service.errors.v1.Issue;
import io.github.tickets_service.itsm.v1.CreateTicketRequest;
import io.github.tickets_service.itsm.v1.GetTicketRequest;
import io.github.tickets_service.itsm.v1.ListTicketsRequest;
import io.github.tickets_service.itsm.v1.Ticket;
import io.github.tickets_service.itsm.v1.TicketServiceGrpc.TicketServiceBlockingStub;
import io.github.tickets_service.itsm.v1.UpdateTicketRequest;
import io.github.tickets_service.itsm.v1.WatchTicketsRequest;
import io.github.tickets_service.itsm.v1.WatchTicketsResponse;
import io.grpc.Context;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.MetadataUtils;
import java.util.HashSet;
import java.util.Iterator;
import java.util.List;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;

/** The steps in their order. */
final class Scenario {
  private final TicketServiceBlockingStub tickets;
  private final JsonObject steps;

  Scenario(TicketServiceBlockingStub tickets, JsonObject steps) {
    this.tickets = tickets;
    this.steps = steps;
  }

  void run() throws Exception {
    String key = UUID.randomUUID().toString();
    Ticket first = create(key);
    repeat(key, first);
    reuseKey(key);
    pages(first);
    clear(first);
    invalid();
    notFound();
    WatchTicketsResponse seen = watch(first);
    resume(first, seen);
  }

  private Ticket create(String key) {
    JsonObject step = step("create");
    Answer answer = create(Words.creation(step.getAsJsonObject("ticket")), key);
    See.same("replayed", answer.replayed(), false);
    See.members(answer.ticket(), step.getAsJsonObject("expect"));
    See.same(
        "metadata",
        JsonParser.parseString(answer.ticket().getMetadataJson()),
        step.getAsJsonObject("ticket").get("metadata"));
    done("create");
    return answer.ticket();
  }

  private void repeat(String key, Ticket first) {
    Answer answer = create(Words.creation(step("create").getAsJsonObject("ticket")), key);
    See.same("replayed", answer.replayed(), true);
    See.same("ticket", answer.ticket(), first);
    done("repeat");
  }

  private void reuseKey(String key) throws Exception {
    JsonObject step = step("reuse_key");
    See.failure(
        () -> create(Words.creation(step.getAsJsonObject("ticket")), key), step.getAsJsonObject("expect"));
    done("reuse_key");
  }

  private void pages(Ticket first) {
    JsonObject step = step("pages");
    Set<String> expected = new HashSet<>(Set.of(first.getId()));
    for (int number = 0; number < step.get("create").getAsInt(); number++) {
      CreateTicketRequest request =
          CreateTicketRequest.newBuilder().setSubject("Page " + number).setDescription("One of some.").build();
      expected.add(create(request, UUID.randomUUID().toString()).ticket().getId());
    }
    ListTicketsRequest.Builder request =
        ListTicketsRequest.newBuilder()
            .setStatus(Words.status(step.get("status").getAsString()))
            .setLimit(step.get("limit").getAsInt());
    Set<String> seen = new HashSet<>();
    int pages = 0;
    while (!seen.containsAll(expected)) {
      List<Ticket> page =
          tickets.listTickets(request.setOffset((long) pages * request.getLimit()).build()).getTicketsList();
      See.that(!page.isEmpty(), "the pages end before all tickets were seen");
      page.forEach(ticket -> See.that(seen.add(ticket.getId()), "a ticket is on two pages"));
      pages++;
    }
    See.that(pages >= step.getAsJsonObject("expect").get("pages_at_least").getAsInt(), "too few pages");
    done("pages");
  }

  private void clear(Ticket first) {
    JsonObject step = step("clear");
    FieldMask mask = FieldMask.newBuilder().addAllPaths(Words.list(step.getAsJsonArray("update_mask"))).build();
    UpdateTicketRequest request =
        UpdateTicketRequest.newBuilder().setTicketId(first.getId()).setUpdateMask(mask).build();
    Ticket changed = tickets.updateTicket(request).getTicket();
    See.members(changed, step.getAsJsonObject("expect"));
    See.same("description", changed.getDescription(), first.getDescription());
    See.same("status", changed.getStatus(), first.getStatus());
    See.same("metadata", changed.getMetadataJson(), first.getMetadataJson());
    done("clear");
  }

  private void invalid() throws Exception {
    JsonObject step = step("invalid");
    JsonObject expect = step.getAsJsonObject("expect");
    CreateTicketRequest request = Words.creation(step.getAsJsonObject("ticket"));
    StatusRuntimeException thrown = See.failure(() -> tickets.createTicket(request), expect);
    List<String> fields =
        See.detail(thrown, BadRequest.class).getFieldViolationsList().stream()
            .map(BadRequest.FieldViolation::getField)
            .toList();
    See.same("fields", fields, Words.list(expect.getAsJsonArray("fields")));
    See.same("issues", Failure.of(thrown).issues().stream().map(Issue::getPath).toList(), fields);
    done("invalid");
  }

  private void notFound() throws Exception {
    JsonObject step = step("not_found");
    GetTicketRequest request =
        GetTicketRequest.newBuilder().setTicketId(step.get("ticket_id").getAsString()).build();
    See.failure(() -> tickets.getTicket(request), step.getAsJsonObject("expect"));
    done("not_found");
  }

  private WatchTicketsResponse watch(Ticket first) {
    JsonObject step = step("watch");
    WatchTicketsResponse seen =
        watching(
            WatchTicketsRequest.getDefaultInstance(),
            messages -> {
              WatchTicketsResponse begin = messages.next();
              See.that(
                  !begin.hasEvent() && !begin.getCursor().isEmpty(), "the first message has no position alone");
              setStatus(first, step);
              return nextEvent(messages, first);
            });
    See.same("type", seen.getEvent().getType(), step.getAsJsonObject("expect").get("type").getAsString());
    done("watch");
    return seen;
  }

  private void resume(Ticket first, WatchTicketsResponse before) {
    JsonObject step = step("resume");
    setStatus(first, step);
    WatchTicketsResponse seen =
        watching(
            WatchTicketsRequest.newBuilder().setCursor(before.getCursor()).build(),
            messages -> nextEvent(messages, first));
    List<String> types = Words.list(step.getAsJsonObject("expect").getAsJsonArray("types"));
    See.that(types.contains(seen.getEvent().getType()), "an event " + seen.getEvent().getType());
    See.same("version", seen.getEvent().getVersion(), before.getEvent().getVersion() + 1);
    done("resume");
  }

  private record Answer(Ticket ticket, boolean replayed) {}

  private Answer create(CreateTicketRequest request, String key) {
    AtomicReference<Metadata> headers = new AtomicReference<>();
    AtomicReference<Metadata> trailers = new AtomicReference<>();
    Ticket ticket =
        tickets
            .withInterceptors(
                Idempotency.key(key), MetadataUtils.newCaptureMetadataInterceptor(headers, trailers))
            .createTicket(request)
            .getTicket();
    return new Answer(ticket, Idempotency.replayed(trailers.get()));
  }

  private void setStatus(Ticket ticket, JsonObject step) {
    UpdateTicketRequest.Builder request = UpdateTicketRequest.newBuilder().setTicketId(ticket.getId());
    tickets.updateTicket(request.setStatus(Words.status(step.get("status").getAsString())).build());
  }

  /** Opens a watch for as long as this takes, and cancels it. */
  private WatchTicketsResponse watching(
      WatchTicketsRequest request, Function<Iterator<WatchTicketsResponse>, WatchTicketsResponse> see) {
    try (Context.CancellableContext context = Context.current().withCancellation()) {
      AtomicReference<WatchTicketsResponse> seen = new AtomicReference<>();
      context.run(() -> seen.set(see.apply(tickets.watchTickets(request))));
      return seen.get();
    }
  }

  private static WatchTicketsResponse nextEvent(Iterator<WatchTicketsResponse> messages, Ticket ticket) {
    while (messages.hasNext()) {
      WatchTicketsResponse message = messages.next();
      if (message.hasEvent() && message.getEvent().getTicketId().equals(ticket.getId())) {
        return message;
      }
    }
    throw new AssertionError("the watch ended");
  }

  private JsonObject step(String name) {
    return steps.getAsJsonObject(name);
  }

  private static void done(String step) {
    System.out.println("ok " + step);
  }
}
