/** What a tool that stays open answers, with a shell in the tool's place. */
import {Coprocess, IP_ASIDE} from '../../../lib/agent/network/coprocess';

const echo = (): Coprocess => new Coprocess({command: 'sh', args: ['-c', 'while read -r line; do echo "$line"; done'], marker: {line: 'END', pattern: /^END\n/m}, aside: IP_ASIDE});

test('what ip says of links that others make meanwhile is no failure of a command, everything else is', async () => {
  const tool = echo();
  expect(await tool.run(['Dump was interrupted and may be inconsistent.'])).toBe('');
  expect(await tool.run(['Dump was interrupted and may be inconsistent.', 'Cannot find device "x"', 'Dump was interrupted and may be inconsistent.'])).toBe('Cannot find device "x"\n');
  expect(await tool.run([])).toBe('');
  tool.end();
});
