import {ServerResponse} from 'node:http';
import {restify} from '../../lib/base/restify';

test('loading restify leaves writeHead chainable, as Node documents it', () => {
  expect(typeof restify.createServer).toBe('function');
  const response = new ServerResponse({method: 'GET', httpVersionMajor: 1, httpVersionMinor: 1} as never);
  expect(response.writeHead(204)).toBe(response);
});

test('restify loads where Node has no binding of its HTTP parser (Node 24)', () => {
  const owner = process as unknown as {binding(name: string): unknown};
  const {binding} = owner;
  owner.binding = (name) => {
    if (name === 'http_parser') throw new Error(`No such module: ${name}`);
    return binding.call(process, name);
  };
  try {
    jest.isolateModules(() => {
      // eslint-disable-next-line @typescript-eslint/no-require-imports
      expect(typeof (require('../../lib/base/restify') as {restify: typeof restify}).restify.createServer).toBe('function');
    });
  } finally {
    owner.binding = binding;
  }
});
