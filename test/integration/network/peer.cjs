/**
 * The other end of a test connection. `serve PROTOCOL PORT [ADDRESS]` answers "SENDER'S ADDRESS: DATA"; `ask PROTOCOL ADDRESS PORT PATIENCE_MS` sends "hello" and prints
 * the answer, or "refused", or "silence" when nothing has come for so long. `send ADDRESS PORT HEX` sends these bytes by UDP. `repeat ADDRESS PORT` sends "hello" by UDP from one socket for ever and prints what it gets.
 */
const net = require('node:net');
const dgram = require('node:dgram');
const [mode, protocol, ...rest] = process.argv.slice(2);

if (mode === 'serve') {
  const [port, address = '0.0.0.0'] = rest;
  const answer = (from, data) => `${from}: ${data}`;
  if (protocol === 'tcp') {
    net.createServer(s => s.on('error', () => undefined).on('data', d => s.end(answer(s.remoteAddress, d)))).listen(Number(port), address, () => console.log('ready'));
  } else {
    const socket = dgram.createSocket('udp4').on('message', (d, from) => socket.send(answer(from.address, d), from.port, from.address));
    socket.bind(Number(port), address, () => console.log('ready'));
  }
} else if (mode === 'send') {
  const [port, hex] = rest;
  const socket = dgram.createSocket('udp4').on('error', () => undefined);
  socket.send(Buffer.from(hex, 'hex'), Number(port), protocol, err => { console.log(err ? err.code : 'sent'); socket.close(); });
} else if (mode === 'repeat') {
  const [port] = rest;
  const socket = dgram.createSocket('udp4').on('message', d => console.log(String(d))).on('error', () => undefined);
  setInterval(() => socket.send('hello', Number(port), protocol, () => undefined), 20);
} else {
  const [address, port, patienceMs] = rest;
  const timer = setTimeout(() => { console.log('silence'); process.exit(0); }, Number(patienceMs));
  const done = text => { clearTimeout(timer); console.log(text); process.exit(0); };
  if (protocol === 'tcp') {
    net.connect({host: address, port: Number(port)}).on('error', err => done(err.code === 'ECONNREFUSED' || err.code === 'ECONNRESET' ? 'refused' : err.code)).on('data', d => done(String(d))).end('hello');
  } else {
    const socket = dgram.createSocket('udp4').on('message', d => done(String(d))).on('error', err => done(err.code));
    socket.send('hello', Number(port), address);
  }
}
