package scenario;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import io.github.tickets_service.client.Credentials;
import io.github.tickets_service.itsm.v1.TicketServiceGrpc;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** The scenario, as README.md of the folder above tells it, by the artifact tickets-client and grpc-java. */
final class Main {
  private Main() {}

  public static void main(String[] arguments) throws Exception {
    JsonObject credentials = read("TICKETS_CREDENTIALS");
    JsonObject steps = read("TICKETS_SCENARIO").getAsJsonObject("steps");
    ManagedChannel channel =
        Grpc.newChannelBuilder(credentials.get("grpc_target").getAsString(), InsecureChannelCredentials.create())
            .build();
    try {
      new Scenario(
              TicketServiceGrpc.newBlockingStub(channel)
                  .withCallCredentials(Credentials.apiKey(credentials.get("itsm_api_key").getAsString())),
              steps)
          .run();
    } finally {
      channel.shutdownNow();
    }
  }

  private static JsonObject read(String variable) throws IOException {
    return JsonParser.parseString(Files.readString(Path.of(System.getenv(variable)))).getAsJsonObject();
  }
}
