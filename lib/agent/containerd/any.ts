/**
 * Payloads inside google.protobuf.Any. containerd's typeurl registry decodes JSON for OCI types and protobuf for its own; the type url
 * decides, so these names must match it to the letter.
 */
import type {Any} from './messages';

const OCI = 'types.containerd.io/opencontainers/runtime-spec/1';
export const SPEC_URL = `${OCI}/Spec`;
export const PROCESS_URL = `${OCI}/Process`;
export const RESOURCES_URL = `${OCI}/LinuxResources`;
export const RUNC_OPTIONS_URL = 'containerd.runc.v1.Options';

export function jsonAny(typeUrl: string, value: unknown): Any {
  return {type_url: typeUrl, value: Buffer.from(JSON.stringify(value))};
}
