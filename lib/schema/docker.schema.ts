/**
 * The ajv schema of an image's config, beside its types in docker.ts: shapes and types only. Unknown fields pass, null stands for "not given"
 * as in Go. Limits on lengths keep absurd input out of the store. (What clients send is described field by field in options/.)
 */
const nullable = <T extends {type: string | string[]}>(schema: T): T => ({...schema, type: [schema.type, 'null'].flat()});
const text = {type: ['string', 'null'], maxLength: 65_536};
const bool = {type: ['boolean', 'null']};
// Go's int64; JavaScript's safe range is narrower, which no real limit reaches.
const int = {type: ['integer', 'null'], minimum: -(2 ** 63), maximum: 2 ** 63};
const list = (items: object) => ({type: ['array', 'null'], maxItems: 10_000, items});
const map = (values: object) => ({type: ['object', 'null'], maxProperties: 10_000, additionalProperties: values});
const object = (properties: Record<string, object>) => nullable({type: 'object', properties});
const strings = list({type: 'string', maxLength: 262_144});
// Go's strslice: one string or a list.
const words = {type: ['array', 'string', 'null'], maxItems: 10_000, maxLength: 262_144, items: {type: 'string', maxLength: 262_144}};
const stringMap = map({type: 'string', maxLength: 262_144});
const emptyObjects = map({type: 'object'});

const health = object({Test: strings, Interval: int, Timeout: int, Retries: int, StartPeriod: int, StartInterval: int});

const config = {
  Hostname: text, Domainname: text, User: text, AttachStdin: bool, AttachStdout: bool, AttachStderr: bool, ExposedPorts: emptyObjects, Tty: bool,
  OpenStdin: bool, StdinOnce: bool, Env: strings, Cmd: words, Healthcheck: health, ArgsEscaped: bool, Image: text, Volumes: emptyObjects, WorkingDir: text,
  Entrypoint: words, NetworkDisabled: bool, MacAddress: text, OnBuild: strings, Labels: stringMap, StopSignal: text, StopTimeout: int, Shell: words,
};

const body = (properties: Record<string, object>, required: string[] = []) => ({type: 'object', properties, required});

/** What an image's builder said of it; whoever reads the image reads this. `created` is a time by its own rules. */
export const IMAGE_CONFIG_SCHEMA = body({
  created: text, author: text, architecture: {type: 'string', maxLength: 256}, os: {type: 'string', maxLength: 256}, variant: text, 'os.version': text, docker_version: text,
  config: object(config), rootfs: {type: 'object'},
  history: list({type: 'object', properties: {created: text, created_by: {type: ['string', 'null'], maxLength: 1_048_576}, author: text, comment: text, empty_layer: bool}}),
}, ['architecture', 'os', 'rootfs']);
