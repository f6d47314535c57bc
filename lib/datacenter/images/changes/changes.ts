/**
 * `--change` of commit and import: Dockerfile instructions over an image's config, as the Engine's classic builder applies them. Pure; the config
 * given is not touched. What an instruction cannot say here (RUN, COPY, FROM, ...) is refused by its name, in the Engine's words.
 */
import path from 'node:path';
import type {Config} from '../../../schema/docker';
import {checkSignal} from '../../create/merge';
import {healthcheck} from './healthcheck';
import {portsOf} from './ports';
import {expand, expandWords, type Instruction, instruction, instructions, invalid, jsonWords, words} from './words';

interface State { config: Config; env: Map<string, string>; cmdSet: boolean }
type Apply = (state: State, line: Instruction) => void;

const INSTRUCTIONS: Readonly<Record<string, Apply>> = {
  CMD: (state, line) => {
    // Nothing at all is an empty line for the shell, as the Engine has it.
    state.config.Cmd = line.rest === '' ? shellOf(state.config) : command(state, line);
    state.cmdSet = true;
  },
  ENTRYPOINT: (state, line) => {
    state.config.Entrypoint = command(state, line);
    // An entrypoint of one's own does not go with the command of another.
    if (!state.cmdSet) state.config.Cmd = null;
  },
  ENV: (state, line) => {
    for (const [name, value] of pairs(state, line)) {
      const list = [...state.config.Env ?? []];
      const at = list.findIndex((entry) => entry.split('=', 1)[0] === name);
      list[at < 0 ? list.length : at] = `${name}=${value}`;
      state.config.Env = list;
      state.env.set(name, value);
    }
  },
  EXPOSE: (state, line) => {
    const specs = some(line, words(line.rest)).flatMap((word) => expandWords(word, state.env));
    state.config.ExposedPorts = {...state.config.ExposedPorts, ...Object.fromEntries(specs.flatMap(portsOf).map((port) => [port, {}]))};
  },
  HEALTHCHECK: (state, line) => {
    state.config.Healthcheck = healthcheck(line);
  },
  LABEL: (state, line) => {
    state.config.Labels = {...state.config.Labels, ...Object.fromEntries(pairs(state, line))};
  },
  ONBUILD: (state, line) => {
    const trigger = line.original.replace(/^\s*ONBUILD\s*/i, '');
    const {name} = instruction(trigger);
    if (name === '') throw invalid('ONBUILD requires at least one argument');
    if (name === 'ONBUILD') throw invalid('Chaining ONBUILD via `ONBUILD ONBUILD` isn\'t allowed');
    if (name === 'MAINTAINER' || name === 'FROM') throw invalid(`${name} isn't allowed as an ONBUILD trigger`);
    state.config.OnBuild = [...state.config.OnBuild ?? [], trigger];
  },
  STOPSIGNAL: (state, line) => {
    const signal = expand(one(line), state.env);
    checkSignal(signal);
    state.config.StopSignal = signal;
  },
  USER: (state, line) => {
    state.config.User = expand(one(line), state.env);
  },
  VOLUME: (state, line) => {
    const places = some(line, jsonWords(line.rest) ?? line.rest.split(/\s+/).filter((w) => w !== '')).map((word) => expand(word, state.env).trim());
    if (places.includes('')) throw invalid('VOLUME specified can not be an empty string');
    state.config.Volumes = {...state.config.Volumes, ...Object.fromEntries(places.map((place) => [place, {}]))};
  },
  WORKDIR: (state, line) => {
    const wanted = expand(one(line), state.env);
    if (wanted === '') throw invalid('cannot normalize nothing');
    state.config.WorkingDir = path.posix.resolve('/', state.config.WorkingDir || '/', wanted);
  },
};

export function applyChanges(config: Config, changes: readonly string[]): Config {
  if (changes.length === 0) return config;
  const lines = instructions(changes.join('\n'));
  for (const {name} of lines) if (!Object.hasOwn(INSTRUCTIONS, name)) throw invalid(`${name.toLowerCase()} is not a valid change command`);
  const env = new Map((config.Env ?? []).map((entry): [string, string] => {
    const at = entry.indexOf('=');
    return at < 0 ? [entry, ''] : [entry.slice(0, at), entry.slice(at + 1)];
  }));
  const state: State = {config: structuredClone(config), env, cmdSet: false};
  for (const line of lines) {
    if (line.name !== 'HEALTHCHECK' && line.flags.length) throw invalid(`unknown flag: --${line.flags[0]!.split('=', 1)[0]}`);
    INSTRUCTIONS[line.name]!(state, line);
  }
  return state.config;
}

/** The exec form as it is; anything else is one line for the shell. */
function command({config}: State, line: Instruction): string[] {
  const exec = jsonWords(line.rest);
  if (exec) return exec;
  return line.rest === '' ? [] : [...shellOf(config), line.rest];
}

function shellOf({Shell}: Config): string[] {
  return Shell?.length ? Shell : ['/bin/sh', '-c'];
}

/** NAME=VALUE words, or the older form: a name, a space, and all the rest. Values see the variables from before the line. */
function pairs({env}: State, line: Instruction): [string, string][] {
  const before = new Map(env);
  const found = some(line, words(line.rest));
  const read = (name: string, value: string): [string, string] => {
    const key = line.name === 'LABEL' ? expand(name, before) : name;
    if (key === '') throw invalid(`${line.name} names can not be blank`);
    return [key, expand(value, before)];
  };
  if (!found[0]!.includes('=')) {
    const [, name, value] = /^(\S+)\s+(.*)$/s.exec(line.rest) ?? [];
    if (name === undefined) throw invalid(`${line.name} must have two arguments`);
    return [read(name, value!)];
  }
  return found.map((word) => {
    const at = word.indexOf('=');
    if (at < 0) throw invalid(`Syntax error - can't find = in ${JSON.stringify(word)}. Must be of the form: name=value`);
    return read(word.slice(0, at), word.slice(at + 1));
  });
}

function one({name, rest}: Instruction): string {
  if (rest === '') throw invalid(`${name} requires exactly one argument`);
  return rest;
}

function some({name}: Instruction, found: string[]): string[] {
  if (found.length === 0) throw invalid(`${name} requires at least one argument`);
  return found;
}
