// The Engine API without a client in the way: one keep-alive connection per engine.
import http from 'node:http';

export function client(engine) {
  const agent = new http.Agent({keepAlive: true, maxSockets: 4});
  const call = (method, path, body, {expect = [200, 201, 204, 304], raw = false} = {}) => new Promise((resolve, reject) => {
    const payload = body === undefined ? undefined : JSON.stringify(body);
    const req = http.request({socketPath: engine.socket, agent, method, path: `/v1.41${path}`,
      headers: payload ? {'content-type': 'application/json', 'content-length': Buffer.byteLength(payload)} : method === 'POST' ? {'content-length': 0} : {}}, (res) => {
      const chunks = [];
      res.on('data', (c) => { if (!raw) chunks.push(c); });
      res.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        if (!expect.includes(res.statusCode)) return reject(new Error(`${engine.name}: ${method} ${path}: ${res.statusCode} ${text}`));
        let json;
        try { json = JSON.parse(text); } catch { json = text; }
        resolve(json);
      });
      res.on('error', reject);
    });
    req.on('error', reject);
    req.end(payload);
  });
  /** An exec's whole life: create, start, read to the end, exit code. */
  const exec = async (id, cmd) => {
    const {Id} = await call('POST', `/containers/${id}/exec`, {AttachStdout: true, AttachStderr: true, Cmd: cmd});
    await new Promise((resolve, reject) => {
      const req = http.request({socketPath: engine.socket, method: 'POST', path: `/v1.41/exec/${Id}/start`, headers: {'content-type': 'application/json', connection: 'Upgrade', upgrade: 'tcp'}});
      req.on('upgrade', (_res, socket) => { socket.on('data', () => {}); socket.on('end', () => { socket.end(); resolve(); }); });
      req.on('response', (res) => { res.resume(); res.on('end', resolve); });
      req.on('error', reject);
      req.end(JSON.stringify({Detach: false, Tty: false}));
    });
    const {ExitCode} = await call('GET', `/exec/${Id}/json`);
    if (ExitCode !== 0) throw new Error(`${engine.name}: exec ended with ${ExitCode}`);
  };
  return {call, exec, close: () => agent.destroy()};
}
