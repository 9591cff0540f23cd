import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HexFormat;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Answers requests of a topic as a listener of Spring with a reply does: to the topic and partition that their headers
 * name, with their correlation id, and with the body {"echo": REQUEST}. Prints each correlation id in hexadecimal.
 * Arguments: the clients' properties, the topic, how many requests.
 */
public class KafkaAnswer {
    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        properties.load(new StringReader(arguments[0]));
        int left = Integer.parseInt(arguments[2]);
        try (KafkaConsumer<byte[], byte[]> consumer =
                        new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
                KafkaProducer<byte[], byte[]> producer =
                        new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer())) {
            consumer.subscribe(List.of(arguments[1]));
            while (left > 0) {
                for (ConsumerRecord<byte[], byte[]> request : consumer.poll(Duration.ofSeconds(1))) {
                    producer.send(reply(request)).get();
                    left--;
                }
            }
            consumer.commitSync();
        }
    }

    private static ProducerRecord<byte[], byte[]> reply(ConsumerRecord<byte[], byte[]> request) {
        byte[] correlation = header(request, "kafka_correlationId");
        byte[] partition = header(request, "kafka_replyPartition");
        System.out.println(HexFormat.of().formatHex(correlation));
        ByteArrayOutputStream body = new ByteArrayOutputStream();
        body.writeBytes("{\"echo\":".getBytes(StandardCharsets.UTF_8));
        body.writeBytes(request.value());
        body.write('}');
        ProducerRecord<byte[], byte[]> reply = new ProducerRecord<>(
                new String(header(request, "kafka_replyTopic"), StandardCharsets.UTF_8),
                partition == null ? null : ByteBuffer.wrap(partition).getInt(),
                null,
                body.toByteArray());
        reply.headers().add("kafka_correlationId", correlation);
        return reply;
    }

    private static byte[] header(ConsumerRecord<byte[], byte[]> record, String name) {
        Header header = record.headers().lastHeader(name);
        return header == null ? null : header.value();
    }
}
