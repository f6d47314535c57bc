/** A platform as people write it: "os", "architecture", "os/architecture" or "os/architecture/variant". Pure. */
import {CetusError} from '../../base/errors';

export function checkPlatformText(text: string): void {
  const parts = text.split('/');
  if (parts.length > 3 || parts.some((part) => !/^[A-Za-z0-9_-]+$/.test(part))) throw new CetusError('invalid', `"${text}": cannot parse platform specifier: invalid argument`);
}
