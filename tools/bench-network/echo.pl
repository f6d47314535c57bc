#!/usr/bin/perl
# One byte to and fro over one connection. Perl, because it is in every distribution, and its own share of a round is 2 to 3 us; Node's would hide the network's.
#   echo.pl serve tcp|udp PORT                answers, one client after the other, until it is killed
#   echo.pl tcp|udp ADDRESS PORT SECONDS      prints the median of its rounds, microseconds
use strict;
use warnings;
use IO::Socket::INET;
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

my ($what, @args) = @ARGV;

if ($what eq 'serve') {
  my ($protocol, $port) = @args;
  my $server = IO::Socket::INET->new(LocalPort => $port, Proto => $protocol, ReuseAddr => 1, $protocol eq 'tcp' ? (Listen => 8) : ()) or die "listen at $port: $@";
  my $byte;
  if ($protocol eq 'udp') {
    while (defined(my $from = $server->recv($byte, 1))) { $server->send($byte, 0, $from) }
  }
  while (my $client = $server->accept) {
    $client->setsockopt(IPPROTO_TCP, TCP_NODELAY, 1);
    while (sysread($client, $byte, 1)) { syswrite($client, $byte, 1) }
  }
  exit;
}

my ($address, $port, $seconds) = @args;
my $socket = IO::Socket::INET->new(PeerAddr => $address, PeerPort => $port, Proto => $what, Timeout => 2) or die "connect to $address:$port: $@";
$socket->setsockopt(IPPROTO_TCP, TCP_NODELAY, 1) if $what eq 'tcp';
my $byte = 'x';
my @rounds;
my $from = clock_gettime(CLOCK_MONOTONIC);
my $now = $from;
while ($now - $from < $seconds) {
  my $before = $now;
  syswrite($socket, $byte, 1) or die "write: $!";
  sysread($socket, $byte, 1) or die "read: $!";
  $now = clock_gettime(CLOCK_MONOTONIC);
  push @rounds, $now - $before;
}
@rounds = sort { $a <=> $b } @rounds;
printf "%.2f\n", $rounds[@rounds / 2] * 1e6;
