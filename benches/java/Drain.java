import com.sun.management.OperatingSystemMXBean;
import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.DebeziumEngine.RecordCommitter;
import io.debezium.engine.format.JsonByteArray;
import java.lang.management.ManagementFactory;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Debezium's engine from a slot into a topic, with settings for throughput and JSON without schemas: each batch is sent, awaited and then
 * marked, as Debezium Server's Kafka sink does.
 *
 * <p>Arguments: port, database, publication, table, brokers, then rows to wait for, and pairs of slot and topic. Every slot is drained in
 * turn in this one JVM, so that the last one finds it warm; for that one a line of JSON says how long it took from the engine's
 * start to the last acknowledgement, and the process's CPU time meanwhile. With 0 rows it runs until it is killed.
 */
public class Drain {
    private final CompletableFuture<Void> done = new CompletableFuture<>();
    private final KafkaProducer<byte[], byte[]> producer;
    private final String topic;
    private final long rows;
    private long handled;

    private Drain(String brokers, String topic, long rows) {
        Properties settings = new Properties();
        settings.setProperty("bootstrap.servers", brokers);
        settings.setProperty("acks", "all");
        settings.setProperty("compression.type", "lz4");
        settings.setProperty("batch.size", "524288");
        settings.setProperty("buffer.memory", "134217728");
        producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
        this.topic = topic;
        this.rows = rows;
    }

    public static void main(String[] a) throws Exception {
        long rows = Long.parseLong(a[5]);
        for (int at = 6; at < a.length; at += 2) {
            OperatingSystemMXBean process = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
            long begun = System.nanoTime();
            long worked = process.getProcessCpuTime();
            Drain drain = new Drain(a[4], a[at + 1], rows);
            DebeziumEngine<?> engine = drain.engine(a[0], a[1], a[2], a[3], a[at]);
            Thread thread = new Thread(engine);
            thread.setDaemon(true);
            thread.start();
            drain.done.get();
            double seconds = (System.nanoTime() - begun) / 1e9;
            double cpu = (process.getProcessCpuTime() - worked) / 1e9;
            if (at + 2 < a.length) {
                engine.close();
            } else {
                System.out.println("{\"seconds\": " + seconds + ", \"cpu_seconds\": " + cpu + "}");
            }
            drain.producer.close();
        }
        System.out.flush();
        Runtime.getRuntime().halt(0);
    }

    private DebeziumEngine<?> engine(String port, String database, String publication, String table, String slot) {
        String[][] settings = {
            {"name", "drain"},
            {"connector.class", "io.debezium.connector.postgresql.PostgresConnector"},
            {"offset.storage", "org.apache.kafka.connect.storage.MemoryOffsetBackingStore"},
            {"database.hostname", "127.0.0.1"},
            {"database.port", port},
            {"database.user", "postgres"},
            {"database.password", "unused"},
            {"database.dbname", database},
            {"topic.prefix", "bench"},
            {"plugin.name", "pgoutput"},
            {"slot.name", slot},
            {"publication.name", publication},
            {"publication.autocreate.mode", "disabled"},
            {"table.include.list", "public." + table},
            {"snapshot.mode", "no_data"},
            // What the workload is followed by, so that others see its end.
            {"message.prefix.exclude.list", "bench"},
            {"key.converter.schemas.enable", "false"},
            {"value.converter.schemas.enable", "false"},
            {"max.batch.size", "8192"},
            {"max.queue.size", "32768"},
            {"poll.interval.ms", "10"},
            {"record.processing.threads", "AVAILABLE_CORES"},
            {"tombstones.on.delete", "false"},
        };
        Properties properties = new Properties();
        for (String[] setting : settings) {
            properties.setProperty(setting[0], setting[1]);
        }
        return DebeziumEngine.create(JsonByteArray.class)
            .using(properties)
            .using((success, message, error) -> done.completeExceptionally(new IllegalStateException(message, error)))
            .notifying(this::send)
            .build();
    }

    private void send(List<ChangeEvent<byte[], byte[]>> events, RecordCommitter<ChangeEvent<byte[], byte[]>> committer)
            throws InterruptedException {
        CountDownLatch acknowledged = new CountDownLatch(events.size());
        for (ChangeEvent<byte[], byte[]> event : events) {
            producer.send(new ProducerRecord<>(topic, event.key(), event.value()), (place, error) -> {
                if (error != null) {
                    done.completeExceptionally(error);
                }
                acknowledged.countDown();
            });
            committer.markProcessed(event);
        }
        acknowledged.await();
        committer.markBatchFinished();
        handled += events.size();
        if (rows > 0 && handled >= rows) {
            done.complete(null);
        }
    }
}
