/**
 * A check against a JSON schema that is compiled when it is first asked. A process needs few of its checks to begin, and to compile all of them took ajv as long
 * as the rest of an agent's or an endpoint's beginning takes. What is wrong with a schema shows at its first use: each has a test that uses it.
 */
import type Ajv from 'ajv';
import type {AnySchema, ErrorObject, ValidateFunction} from 'ajv';

export interface Check {
  (value: unknown): boolean;
  /** Of the last value that it did not take. */
  errors?: ErrorObject[] | null;
}

export function lateCheck(ajv: Ajv, schema: AnySchema): Check {
  let compiled: ValidateFunction | undefined;
  const check: Check = (value) => {
    compiled ??= ajv.compile(schema);
    const fits = compiled(value);
    check.errors = compiled.errors;
    return fits;
  };
  return check;
}
