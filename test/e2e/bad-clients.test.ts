/** Clients that do not read, hang up, or never say what they want, at a real `cetus up`: nobody else notices, and nothing grows. */
import net from 'node:net';
import {ask, badInputSuite, datacenter, endpoint, footprint, footprintBefore, nothingIsLeft} from '../harness/bad-input';
import {until} from '../harness/wait';

/** Heads that never end; whether they were cut is looked at last. */
const loris: net.Socket[] = [];

badInputSuite({
  begin: async () => {
    for (let i = 0; i < 50; i += 1) {
      const socket = net.connect(endpoint());
      socket.on('error', () => undefined).resume();
      socket.write('GET /_ping HTTP/1.1\r\nHost: x\r\nX-Slow: ');
      loris.push(socket);
    }
  },
  end: async () => {
    for (const socket of loris) socket.destroy();
  },
});

describe('clients that', () => {
  test('stop reading logs: the source waits, memory does not grow', async () => {
    await datacenter().ok(['run', '-d', '--name', 'talker', '--log-opt', 'max-size=10m', 'busybox', 'yes', 'a rather long line that is said again and again']);
    const readers = Array.from({length: 10}, () => {
      const socket = net.connect(endpoint());
      socket.on('error', () => undefined).pause();
      socket.write('GET /containers/talker/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n');
      return socket;
    });
    const from = Date.now();
    let peak = 0;
    await until('three seconds of it', async () => {
      const {rss} = await footprint();
      peak = Math.max(peak, ...Object.keys(rss).map((part) => rss[part]! - footprintBefore().rss[part]!));
      return Date.now() - from > 3_000;
    });
    expect(peak).toBeLessThan(250 << 20);
    for (const socket of readers) socket.destroy();
    await datacenter().ok(['rm', '-f', 'talker']);
  });

  test('stop reading events', async () => {
    const socket = net.connect(endpoint());
    socket.on('error', () => undefined).pause();
    socket.write('GET /events HTTP/1.1\r\nHost: x\r\n\r\n');
    for (let n = 0; n < 20; n += 1) expect((await ask('POST', `/images/busybox/tag?repo=event&tag=t${n}`)).status).toBe(201);
    expect((await ask('GET', '/_ping')).status).toBe(200);
    for (let n = 0; n < 20; n += 1) expect((await ask('DELETE', `/images/event:t${n}`)).status).toBe(200);
    socket.destroy();
  });

  test('hang up in the middle, 200 of them', async () => {
    const requests = [
      'POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"Image":"busy',
      'GET /events HTTP/1.1\r\nHost: x\r\n\r\n',
      'GET /containers/box/logs?follow=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: x\r\n\r\n',
      'POST /containers/box/wait HTTP/1.1\r\nHost: x\r\n\r\n',
      'POST /containers/box/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n',
      'POST /images/load HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n',
      'GET /images/busybox/get HTTP/1.1\r\nHost: x\r\n\r\n',
      'GET /containers/json HTTP/1.1\r\nHost: x\r\n',
    ];
    const pids = {...datacenter().pids()};
    await Promise.all(Array.from({length: 200}, (_, n) => new Promise<void>((resolve) => {
      const socket = net.connect(endpoint(), () => {
        socket.write(requests[n % requests.length]);
        // Some at once, some when the answer has begun.
        setTimeout(() => socket.destroy(), (n % 10) * 20);
      });
      socket.on('error', () => undefined).on('close', () => resolve());
    })));
    expect((await ask('GET', '/_ping')).status).toBe(200);
    expect(await datacenter().ok(['run', '--rm', 'busybox', 'echo', 'still here'])).toBe('still here');
    expect({...datacenter().pids()}).toEqual(pids);
  });

  test('never end their head are cut', async () => {
    await until('all of them to be cut', () => loris.every((socket) => socket.destroyed), 150_000);
  }, 240_000);
});

nothingIsLeft();
