# The conversation of test_clients.py with Perl's Net::Stomp. Usage: perl perl_net_stomp.pl PORT QUEUE
use strict;
use warnings;
use JSON::PP;
use Net::Stomp;

my ($port, $queue) = @ARGV;

sub connected {
    my $stomp = Net::Stomp->new({ hostname => '127.0.0.1', port => $port, reconnect_on_fork => 0 });
    my $frame = $stomp->connect({ login => 'admin', passcode => 'admin', 'accept-version' => '1.1', host => 'localhost' });
    die 'refused' unless $frame->command eq 'CONNECTED';
    return $stomp;
}

sub told {
    my ($frame) = @_;
    my $headers = $frame->headers;
    return {
        body => $frame->body,
        redelivered => $headers->{redelivered} // '',
        origin => $headers->{'original-destination'} // '',
    };
}

sub receive {
    my ($stomp, $destination, $ack, $count, $each) = @_;
    $stomp->subscribe({ destination => $destination, ack => $ack, id => $destination });
    my @got;
    while (@got < $count) {
        my $frame = $stomp->receive_frame({ timeout => 20 }) or die 'nothing came';
        die $frame->as_string unless $frame->command eq 'MESSAGE';
        push @got, told($frame);
        $each->($frame) if $each;
    }
    return \@got;
}

sub send_one {
    my ($stomp, $destination, $body, %headers) = @_;
    # Not send_with_receipt: it makes receipt names of the session's, and does not know the escapes of STOMP 1.1.
    $stomp->send({ destination => $destination, body => $body, persistent => 'true', receipt => $body, %headers });
    my $receipt = $stomp->receive_frame({ timeout => 20 }) or die 'nothing came';
    die $receipt->as_string unless $receipt->command eq 'RECEIPT' && $receipt->headers->{'receipt-id'} eq $body;
}

my $first = connected();
send_one($first, "/queue/$queue", "m$_", n => $_) for 0 .. 4;
my $received = receive($first, "/queue/$queue", 'client-individual', 5, sub {
    my ($frame) = @_;
    my %about = (frame => $frame, subscription => $frame->headers->{subscription});
    $first->ack({%about}) if $frame->body =~ /m[01]/;
    $first->nack({%about}) if $frame->body eq 'm2';
});
$first->disconnect;

my $second = connected();
my $again = receive($second, "/queue/$queue", 'auto', 2);
my $dead = receive($second, "/queue/DLQ.$queue", 'auto', 1);
$second->send_frame(Net::Stomp::Frame->new({ command => 'BEGIN', headers => { transaction => 'kept' } }));
send_one($second, "/queue/$queue.tx", $_, transaction => 'kept') for 't0', 't1';
$second->send_frame(Net::Stomp::Frame->new({ command => 'COMMIT', headers => { transaction => 'kept' } }));
$second->send_frame(Net::Stomp::Frame->new({ command => 'BEGIN', headers => { transaction => 'dropped' } }));
send_one($second, "/queue/$queue.tx", 't2', transaction => 'dropped');
$second->send_frame(Net::Stomp::Frame->new({ command => 'ABORT', headers => { transaction => 'dropped' } }));
send_one($second, "/queue/$queue.tx", 'last');
my $committed = receive($second, "/queue/$queue.tx", 'auto', 3);
$second->disconnect;
print encode_json({ received => $received, again => $again, dead => $dead, committed => $committed }), "\n";
