import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Iterator;
import java.util.Map;
import javax.jms.BytesMessage;
import javax.jms.Connection;
import javax.jms.MapMessage;
import javax.jms.Message;
import javax.jms.MessageProducer;
import javax.jms.Session;
import javax.jms.StreamMessage;
import org.apache.activemq.ActiveMQConnectionFactory;

/** Sends a JMS message for each line of JSON on standard input, and ends. The first argument is the broker's URL. */
public class Produce {
    public static void main(String[] arguments) throws Exception {
        ActiveMQConnectionFactory factory = new ActiveMQConnectionFactory("admin", "admin", arguments[0]);
        Connection connection = factory.createConnection();
        connection.start();
        Session session = connection.createSession(false, Session.AUTO_ACKNOWLEDGE);
        ObjectMapper mapper = new ObjectMapper();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            JsonNode wanted = mapper.readTree(line);
            MessageProducer producer = session.createProducer(session.createQueue(wanted.get("queue").asText()));
            Message message = message(session, wanted);
            for (Iterator<Map.Entry<String, JsonNode>> all = wanted.get("properties").fields(); all.hasNext();) {
                Map.Entry<String, JsonNode> property = all.next();
                message.setObjectProperty(property.getKey(), value(property.getValue()));
            }
            producer.send(message);
            producer.close();
        }
        connection.close();
    }

    private static Message message(Session session, JsonNode wanted) throws Exception {
        JsonNode body = wanted.get("body");
        switch (wanted.get("kind").asText()) {
            case "bytes":
                BytesMessage bytes = session.createBytesMessage();
                bytes.writeBytes(Base64.getDecoder().decode(body.asText()));
                return bytes;
            case "map":
                MapMessage map = session.createMapMessage();
                for (Iterator<Map.Entry<String, JsonNode>> all = body.fields(); all.hasNext();) {
                    Map.Entry<String, JsonNode> entry = all.next();
                    map.setObject(entry.getKey(), value(entry.getValue()));
                }
                return map;
            case "stream":
                StreamMessage stream = session.createStreamMessage();
                for (JsonNode entry : body) {
                    stream.writeObject(value(entry));
                }
                return stream;
            case "object":
                return session.createObjectMessage(body.asText());
            case "plain":
                return session.createMessage();
            default:
                return session.createTextMessage(body.isNull() ? null : body.asText());
        }
    }

    private static Object value(JsonNode node) {
        if (node.isInt()) {
            return node.intValue();
        }
        if (node.isLong()) {
            return node.longValue();
        }
        if (node.isDouble()) {
            return node.doubleValue();
        }
        return node.isBoolean() ? (Object) node.booleanValue() : node.asText();
    }
}
