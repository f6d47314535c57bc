/**
 * A process's certificate, its key and whom it trusts, as they are now: certificates are renewed while connections are open. Who listens or connects
 * with them takes `current` for each new connection; those that are open go on.
 */
import {createSecureContext, type SecureContext} from 'node:tls';

export interface TlsMaterial { ca: string; cert: string; key: string }

export class Credentials {
  private readonly listeners = new Set<(next: TlsMaterial) => void>();

  constructor(private material: TlsMaterial) {}

  get current(): TlsMaterial {
    return this.material;
  }

  replace(next: TlsMaterial): void {
    this.material = next;
    for (const listener of this.listeners) listener(next);
  }

  /** Returns how to stop. */
  onReplace(listener: (next: TlsMaterial) => void): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }
}

/** Where a test or a fixed configuration has the material itself. */
export function currentOf(tls: TlsMaterial | Credentials): TlsMaterial {
  return tls instanceof Credentials ? tls.current : tls;
}

const contexts = new WeakMap<TlsMaterial, SecureContext>();

/**
 * For tls.connect: what OpenSSL makes of the material. All connections of one certificate share it: making it anew for each is 1.5 ms of reading keys and certificates, and memory
 * for as long as the connection lives.
 */
export function contextOf(material: TlsMaterial): SecureContext {
  let context = contexts.get(material);
  if (!context) contexts.set(material, context = createSecureContext(material));
  return context;
}
