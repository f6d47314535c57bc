import {ServerResponse} from 'node:http';
import {restify} from '../../lib/base/restify';

test('loading restify leaves writeHead chainable, as Node documents it', () => {
  expect(typeof restify.createServer).toBe('function');
  const response = new ServerResponse({method: 'GET', httpVersionMajor: 1, httpVersionMinor: 1} as never);
  expect(response.writeHead(204)).toBe(response);
});
