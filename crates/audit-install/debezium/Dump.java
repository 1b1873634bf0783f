import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.format.JsonByteArray;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/**
 * What Debezium itself makes of a slot, with its defaults: one line for each message, topic, key and value parted by tabs.
 * Arguments: port, database, slot, publication, and how many messages to wait for.
 */
public class Dump {
    private static int left;

    public static void main(String[] arguments) throws Exception {
        left = Integer.parseInt(arguments[4]);
        Properties properties = new Properties();
        String[][] settings = {
            {"name", "dump"},
            {"connector.class", "io.debezium.connector.postgresql.PostgresConnector"},
            {"offset.storage", "org.apache.kafka.connect.storage.MemoryOffsetBackingStore"},
            {"database.hostname", "127.0.0.1"},
            {"database.port", arguments[0]},
            {"database.user", "postgres"},
            {"database.password", "unused"},
            {"database.dbname", arguments[1]},
            {"topic.prefix", "shop"},
            {"plugin.name", "pgoutput"},
            {"slot.name", arguments[2]},
            {"publication.name", arguments[3]},
            {"publication.autocreate.mode", "disabled"},
            {"snapshot.mode", "no_data"},
            {"skipped.operations", "none"},
            {"key.converter.schemas.enable", "true"},
            {"value.converter.schemas.enable", "true"},
        };
        for (String[] setting : settings) {
            properties.setProperty(setting[0], setting[1]);
        }
        CompletableFuture<Void> done = new CompletableFuture<>();
        DebeziumEngine<ChangeEvent<byte[], byte[]>> engine = DebeziumEngine.create(JsonByteArray.class)
            .using(properties)
            .using((success, message, error) -> done.completeExceptionally(new IllegalStateException(message, error)))
            .notifying((List<ChangeEvent<byte[], byte[]>> events, DebeziumEngine.RecordCommitter<ChangeEvent<byte[], byte[]>> committer) -> {
                for (ChangeEvent<byte[], byte[]> event : events) {
                    System.out.println(event.destination() + "\t" + text(event.key()) + "\t" + text(event.value()));
                    committer.markProcessed(event);
                    left--;
                }
                committer.markBatchFinished();
                if (left <= 0) {
                    done.complete(null);
                }
            })
            .build();
        Thread thread = new Thread(engine);
        thread.setDaemon(true);
        thread.start();
        done.get(180, TimeUnit.SECONDS);
        System.out.flush();
        Runtime.getRuntime().halt(0);
    }

    private static String text(byte[] json) {
        return json == null ? "null" : new String(json, StandardCharsets.UTF_8);
    }
}
