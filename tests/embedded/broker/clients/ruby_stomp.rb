# The conversation of test_clients.py with Ruby's stomp gem. Usage: ruby ruby_stomp.rb PORT QUEUE
require "stomp"
require "json"

PORT = Integer(ARGV[0])
QUEUE = ARGV[1]

def connect
  Stomp::Connection.new(
    hosts: [{ login: "admin", passcode: "admin", host: "127.0.0.1", port: PORT }], reliable: false,
    connect_headers: { "accept-version" => "1.2", "host" => "localhost", "heart-beat" => "5000,5000" }
  )
end

def told(message)
  headers = message.headers
  { body: message.body, redelivered: headers["redelivered"] || "", origin: headers["original-destination"] || "" }
end

def receive(connection, destination, ack, count)
  connection.subscribe(destination, { "ack" => ack }, destination)
  messages = Array.new(count) { connection.receive }
  messages.each { |message| yield message } if block_given?
  messages.map { |message| told(message) }
end

def send_one(connection, destination, body, headers = {})
  connection.publish(destination, body, { "persistent" => "true", "receipt" => body }.merge(headers))
  receipt = connection.receive
  raise receipt.inspect unless receipt.command == "RECEIPT" && receipt.headers["receipt-id"] == body
end

first = connect
5.times { |n| send_one(first, "/queue/#{QUEUE}", "m#{n}", "n" => n.to_s) }
received = receive(first, "/queue/#{QUEUE}", "client-individual", 5) do |message|
  first.ack(message.headers["ack"]) if %w[m0 m1].include?(message.body)
  first.nack(message.headers["ack"]) if message.body == "m2"
end
first.disconnect("receipt" => "bye")

second = connect
again = receive(second, "/queue/#{QUEUE}", "auto", 2)
dead = receive(second, "/queue/DLQ.#{QUEUE}", "auto", 1)
second.begin("kept")
send_one(second, "/queue/#{QUEUE}.tx", "t0", "transaction" => "kept")
send_one(second, "/queue/#{QUEUE}.tx", "t1", "transaction" => "kept")
second.commit("kept")
second.begin("dropped")
send_one(second, "/queue/#{QUEUE}.tx", "t2", "transaction" => "dropped")
second.abort("dropped")
send_one(second, "/queue/#{QUEUE}.tx", "last")
committed = receive(second, "/queue/#{QUEUE}.tx", "auto", 3)
second.disconnect("receipt" => "bye")
puts JSON.generate(received: received, again: again, dead: dead, committed: committed)
