/** Image names as people write them: the default registry and its `library/` are left out. */
import {familiarReference, parseReference} from '../../schema/reference';

/** "docker.io/library/busybox:latest" -> "busybox:latest"; works for digests as well. A stored name that is no reference is shown as it is. */
export function familiar(reference: string): string {
  try {
    return familiarReference(parseReference(reference));
  } catch {
    return reference;
  }
}

export const tagsOf = (references: readonly string[]): string[] => references.filter((r) => !r.includes('@')).map(familiar);
