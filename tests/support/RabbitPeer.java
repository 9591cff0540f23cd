import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.RpcClient;
import com.rabbitmq.client.RpcClientParams;
import com.rabbitmq.client.RpcServer;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.Base64;

/**
 * The RPC classes of RabbitMQ's own Java client. `serve`: answers with the request's body and content type, prints
 * "serving", and ends with its standard input. `ask`: a call for each line "CONTENT-TYPE BASE64"; prints
 * "STATUS CONTENT-TYPE BASE64" of each reply. Arguments: the port, the mode, the queue; of a server, whether that
 * is durable.
 */
public class RabbitPeer {
    public static void main(String[] arguments) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setHost("127.0.0.1");
        factory.setPort(Integer.parseInt(arguments[0]));
        factory.setUsername("admin");
        factory.setPassword("admin");
        try (Connection connection = factory.newConnection(); Channel channel = connection.createChannel()) {
            String queue = arguments[2];
            if (arguments[1].equals("serve")) {
                channel.queueDeclare(queue, Boolean.parseBoolean(arguments[3]), false, false, null);
                serve(channel, queue);
            } else {
                ask(channel, queue);
            }
        }
    }

    private static void serve(Channel channel, String queue) throws Exception {
        channel.basicQos(1);
        RpcServer server = new RpcServer(channel, queue) {
            @Override
            public byte[] handleCall(Delivery request, AMQP.BasicProperties reply) {
                return request.getBody();
            }

            @Override
            protected AMQP.BasicProperties preprocessReplyProperties(
                    Delivery request, AMQP.BasicProperties.Builder builder) {
                return builder.contentType(request.getProperties().getContentType()).build();
            }
        };
        Thread serving = new Thread(() -> {
            try {
                server.mainloop();
            } catch (Exception fault) {
                fault.printStackTrace();
            }
        });
        serving.setDaemon(true);
        serving.start();
        System.out.println("serving");
        System.in.read();
    }

    private static void ask(Channel channel, String queue) throws Exception {
        RpcClient client = new RpcClient(
                new RpcClientParams().channel(channel).exchange("").routingKey(queue).timeout(120_000));
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split(" ");
            AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder().contentType(words[0]).build();
            RpcClient.Response reply = client.doCall(properties, Base64.getDecoder().decode(words[1]));
            Object status = reply.getProperties().getHeaders().get("status");
            String body = Base64.getEncoder().encodeToString(reply.getBody());
            System.out.println(status + " " + reply.getProperties().getContentType() + " " + body);
        }
        client.close();
    }
}
