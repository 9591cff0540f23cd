import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Enumeration;
import java.util.Iterator;
import java.util.Map;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import javax.jms.BytesMessage;
import javax.jms.Connection;
import javax.jms.Message;
import javax.jms.MessageConsumer;
import javax.jms.MessageProducer;
import javax.jms.Queue;
import javax.jms.Session;
import javax.jms.TemporaryQueue;
import javax.jms.TextMessage;
import org.apache.activemq.ActiveMQConnectionFactory;

/**
 * Calls a service as JMS clients do: a temporary queue, JMSReplyTo and JMSCorrelationID, one call for each line of JSON
 * on standard input. Prints each reply as a line of JSON. Arguments: the broker's URL, the queue, the timeout in ms.
 */
public class Ask {
    public static void main(String[] arguments) throws Exception {
        Connection connection = new ActiveMQConnectionFactory("admin", "admin", arguments[0]).createConnection();
        connection.start();
        Session session = connection.createSession(false, Session.AUTO_ACKNOWLEDGE);
        Queue service = session.createQueue(arguments[1]);
        TemporaryQueue replies = session.createTemporaryQueue();
        MessageConsumer consumer = session.createConsumer(replies);
        MessageProducer producer = session.createProducer(service);
        ObjectMapper mapper = new ObjectMapper();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            JsonNode call = mapper.readTree(line);
            Message request;
            if (call.has("bytes")) {
                BytesMessage bytes = session.createBytesMessage();
                bytes.writeBytes(Base64.getDecoder().decode(call.get("bytes").asText()));
                request = bytes;
            } else {
                request = session.createTextMessage(call.get("text").asText());
            }
            for (Iterator<Map.Entry<String, JsonNode>> all = call.get("properties").fields(); all.hasNext();) {
                Map.Entry<String, JsonNode> property = all.next();
                request.setStringProperty(property.getKey(), property.getValue().asText());
            }
            request.setJMSReplyTo(replies);
            if (call.has("correlation")) {
                request.setJMSCorrelationID(call.get("correlation").asText());
            }
            producer.send(request);
            System.out.println(mapper.writeValueAsString(told(mapper, request, consumer.receive(Long.parseLong(arguments[2])))));
        }
        connection.close();
    }

    private static ObjectNode told(ObjectMapper mapper, Message request, Message reply) throws Exception {
        ObjectNode told = mapper.createObjectNode();
        told.put("request", request.getJMSMessageID());
        if (reply == null) {
            return told;
        }
        told.put("correlation", reply.getJMSCorrelationID());
        if (reply instanceof TextMessage) {
            told.put("text", ((TextMessage) reply).getText());
        } else {
            BytesMessage bytes = (BytesMessage) reply;
            byte[] body = new byte[(int) bytes.getBodyLength()];
            bytes.readBytes(body);
            told.put("bytes", Base64.getEncoder().encodeToString(body));
        }
        ObjectNode headers = told.putObject("headers");
        for (Enumeration<?> names = reply.getPropertyNames(); names.hasMoreElements();) {
            String name = (String) names.nextElement();
            headers.put(name, reply.getStringProperty(name));
        }
        return told;
    }
}
