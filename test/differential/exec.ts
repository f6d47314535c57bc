/** Execs: made, started and asked for, and their streams. */
import {mistake, type Script, sleeper, step, type Step} from './step';

/** One command from its creation to its exit code, on an upgraded connection. */
function ran(name: string, config: object, start: object = {}, stdin = '', more: {mistake?: true} = {}): Step[] {
  const id = `e${name.replace(/\W/g, '')}`;
  const tty = (config as {Tty?: boolean}).Tty === true;
  return [
    {...step(`${name}: create`, 'POST /containers/d-exec/exec', {AttachStdout: true, AttachStderr: true, ...config}, {capture: {[id]: 'Id'}}), ...more},
    {...step(`${name}: start`, `POST /exec/$${id}/start`, start, {stdin, read: tty ? 'text' : 'frames'}), ...more},
    step(`${name}: inspect`, `GET /exec/$${id}/json`, undefined, {until: ['Running', false]}),
  ];
}

export const EXEC: Script = {noun: 'exec', steps: [
  step('a container', 'POST /containers/create?name=d-exec', {...sleeper, Env: ['FROM=container'], WorkingDir: '/var'}, {capture: {exec: 'Id'}}),
  step('start it', 'POST /containers/d-exec/start'),
  mistake('start nothing', 'POST /exec/nosuch/start', {}),
  mistake('start nothing, upgraded', 'POST /exec/nosuch/start', {}, {stdin: ''}),
  mistake('inspect nothing', 'GET /exec/nosuch/json'),
  mistake('resize nothing', 'POST /exec/nosuch/resize?h=1&w=1'),
  mistake('no command', 'POST /containers/d-exec/exec', {Cmd: []}),
  mistake('no field', 'POST /containers/d-exec/exec', {}),
  mistake('no body', 'POST /containers/d-exec/exec'),
  mistake('cut JSON', 'POST /containers/d-exec/exec', '{"Cmd":'),
  mistake('a text for a list', 'POST /containers/d-exec/exec', {Cmd: 5}),
  mistake('a list', 'POST /containers/d-exec/exec', '[]'),
  mistake('detach keys that are none', 'POST /containers/d-exec/exec', {Cmd: ['true'], DetachKeys: 'what,is,this'}),
  ...ran('both outputs', {Cmd: ['sh', '-c', 'echo out; echo err >&2']}),
  ...ran('an exit code', {Cmd: ['sh', '-c', 'exit 7']}),
  ...ran('input', {Cmd: ['cat'], AttachStdin: true}, {}, 'hello\nworld\n'),
  ...ran('environment', {Cmd: ['sh', '-c', 'echo $FROM $EXTRA $PWD; id -u'], Env: ['EXTRA=exec'], WorkingDir: '/tmp', User: 'www'}),
  ...ran('a terminal', {Cmd: ['sh', '-c', 'tty; echo out; echo err >&2'], Tty: true}, {Tty: true}),
  ...ran('only stderr', {Cmd: ['sh', '-c', 'echo out; echo err >&2'], AttachStdout: false}),
  ...ran('a command that is not there', {Cmd: ['nosuchcommand']}, {}, '', {mistake: true}),
  ...ran('a command that is a file', {Cmd: ['/etc/passwd']}, {}, '', {mistake: true}),
  ...ran('a user that is not there', {Cmd: ['true'], User: 'nosuch'}, {}, '', {mistake: true}),
  ...ran('a directory that is not there', {Cmd: ['pwd'], WorkingDir: '/nosuch'}, {}, '', {mistake: true}),
  ...ran('a relative directory', {Cmd: ['pwd'], WorkingDir: 'nosuch'}, {}, '', {mistake: true}),
  ...ran('a variable without a name', {Cmd: ['true'], Env: ['=x']}, {}, '', {mistake: true}),
  step('one to detach', 'POST /containers/d-exec/exec', {Cmd: ['sleep', '1000']}, {capture: {detached: 'Id'}}),
  step('inspect before the start', 'GET /exec/$detached/json'),
  step('start it detached', 'POST /exec/$detached/start', {Detach: true}),
  step('inspect what runs', 'GET /exec/$detached/json'),
  mistake('start it again', 'POST /exec/$detached/start', {Detach: true}),
  mistake('resize without a size', 'POST /exec/$detached/resize'),
  mistake('resize to a word', 'POST /exec/$detached/resize?h=x&w=80'),
  step('the container knows it', 'GET /containers/d-exec/json', undefined, {besides: /body\.(?!ExecIDs)/}),
  step('one that is not there, detached', 'POST /containers/d-exec/exec', {Cmd: ['nosuchcommand']}, {capture: {lost: 'Id'}}),
  mistake('start what is not there, detached', 'POST /exec/$lost/start', {Detach: true}),
  step('one to start with bad JSON', 'POST /containers/d-exec/exec', {Cmd: ['true']}, {capture: {bad: 'Id'}}),
  mistake('start with cut JSON', 'POST /exec/$bad/start', '{"Detach":'),
  mistake('start with a text for a truth', 'POST /exec/$bad/start', {Detach: 'yes'}),
  step('pause', 'POST /containers/d-exec/pause'),
  mistake('start while paused', 'POST /exec/$bad/start', {Detach: true}),
  step('unpause', 'POST /containers/d-exec/unpause'),
  step('stop', 'POST /containers/d-exec/stop?t=0'),
  mistake('start what the end has taken', 'POST /exec/$bad/start', {Detach: true}),
  step('inspect what the end has taken', 'GET /exec/$detached/json', undefined, {besides: /./}),
  step('remove', 'DELETE /containers/d-exec'),
  mistake('inspect what went with its container', 'GET /exec/$detached/json'),
]};
