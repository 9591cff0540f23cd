import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.StringReader;
import java.nio.charset.StandardCharsets;
import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Sends a record for each line of JSON on standard input, and ends. The argument holds the producer's properties. With a
 * transactional.id a line {"end": "commit"} or {"end": "abort"} ends a transaction, and the next record begins one.
 */
public class KafkaProduce {
    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        properties.load(new StringReader(arguments[0]));
        boolean transactional = properties.containsKey("transactional.id");
        boolean begun = false;
        ObjectMapper mapper = new ObjectMapper();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer())) {
            if (transactional) {
                producer.initTransactions();
            }
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                JsonNode wanted = mapper.readTree(line);
                if (wanted.has("end")) {
                    end(producer, wanted.get("end").asText());
                    begun = false;
                    continue;
                }
                if (transactional && !begun) {
                    producer.beginTransaction();
                    begun = true;
                }
                producer.send(record(wanted), (sent, error) -> {
                    if (error != null) {
                        error.printStackTrace();
                        System.exit(1);
                    }
                });
            }
            producer.flush();
        }
    }

    private static void end(KafkaProducer<byte[], byte[]> producer, String how) {
        if (how.equals("commit")) {
            producer.commitTransaction();
        } else {
            // Aborted are records that the broker has, not those that were never sent.
            producer.flush();
            producer.abortTransaction();
        }
    }

    private static ProducerRecord<byte[], byte[]> record(JsonNode wanted) throws IOException {
        JsonNode partition = wanted.get("partition");
        JsonNode timestamp = wanted.get("timestamp");
        ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(
            wanted.get("topic").asText(),
            partition.isNull() ? null : partition.asInt(),
            timestamp.isNull() ? null : timestamp.asLong(),
            bytes(wanted.get("key")),
            bytes(wanted.get("value")));
        for (JsonNode header : wanted.get("headers")) {
            record.headers().add(header.get(0).asText(), bytes(header.get(1)));
        }
        return record;
    }

    private static byte[] bytes(JsonNode node) throws IOException {
        return node.isNull() ? null : node.binaryValue();
    }
}
