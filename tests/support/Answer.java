import java.nio.charset.StandardCharsets;
import javax.jms.BytesMessage;
import javax.jms.Connection;
import javax.jms.Message;
import javax.jms.MessageConsumer;
import javax.jms.MessageProducer;
import javax.jms.Session;
import javax.jms.TextMessage;
import org.apache.activemq.ActiveMQConnectionFactory;

/**
 * A service as JMS servers are written: answers each request at its JMSReplyTo with its JMSCorrelationID. Text comes
 * back in capitals, bytes as they are. Prints "serving", and ends with its standard input. Arguments: the broker's URL,
 * the queue.
 */
public class Answer {
    public static void main(String[] arguments) throws Exception {
        Connection connection = new ActiveMQConnectionFactory("admin", "admin", arguments[0]).createConnection();
        connection.start();
        Session session = connection.createSession(false, Session.AUTO_ACKNOWLEDGE);
        MessageConsumer consumer = session.createConsumer(session.createQueue(arguments[1]));
        MessageProducer producer = session.createProducer(null);
        consumer.setMessageListener(request -> {
            try {
                Message reply = answer(session, request);
                reply.setJMSCorrelationID(request.getJMSCorrelationID());
                producer.send(request.getJMSReplyTo(), reply);
            } catch (Exception fault) {
                fault.printStackTrace();
            }
        });
        System.out.println("serving");
        System.in.read();
        connection.close();
    }

    private static Message answer(Session session, Message request) throws Exception {
        if (request instanceof TextMessage) {
            return session.createTextMessage(((TextMessage) request).getText().toUpperCase());
        }
        BytesMessage asked = (BytesMessage) request;
        byte[] body = new byte[(int) asked.getBodyLength()];
        asked.readBytes(body);
        BytesMessage reply = session.createBytesMessage();
        reply.writeBytes(body);
        return reply;
    }
}
