import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.StringReader;
import java.time.Duration;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Prints a line of JSON for each record of a topic, commits, and ends. Arguments: the consumer's properties, the topic,
 * how many records.
 */
public class KafkaConsume {
    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        properties.load(new StringReader(arguments[0]));
        int left = Integer.parseInt(arguments[2]);
        ObjectMapper mapper = new ObjectMapper();
        try (KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(List.of(arguments[1]));
            while (left > 0) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                    System.out.println(mapper.writeValueAsString(shown(mapper, record)));
                    left--;
                }
            }
            consumer.commitSync();
        }
    }

    private static ObjectNode shown(ObjectMapper mapper, ConsumerRecord<byte[], byte[]> record) {
        ObjectNode shown = mapper.createObjectNode();
        shown.put("topic", record.topic()).put("partition", record.partition()).put("offset", record.offset());
        shown.put("timestamp", record.timestamp()).put("key", record.key()).put("value", record.value());
        ArrayNode headers = shown.putArray("headers");
        for (Header header : record.headers()) {
            headers.addArray().add(header.key()).add(header.value());
        }
        return shown;
    }
}
