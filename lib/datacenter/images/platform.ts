/**
 * Platforms as clients name them where an image is asked for: an image has one here, so the question is only whether it is that one. Pure.
 * What stands where no variant is named: arm64 is v8, arm is v7, amd64 is v1 (containerd's normalisation).
 */
import {CetusError} from '../../base/errors';
import type {Image} from '../../schema/objects';

export interface WantedPlatform { os: string; architecture: string; variant?: string; 'os.version'?: string }

const DEFAULT_VARIANTS: Readonly<Record<string, string>> = {arm64: 'v8', arm: 'v7', amd64: 'v1'};

/** `notFound` in the Engine's words where the image is for another platform. */
export function checkPlatform(image: Image, wanted: WantedPlatform, shown: string): void {
  const own: WantedPlatform = {os: image.config.os, architecture: image.config.architecture, ...(image.config.variant ? {variant: image.config.variant} : {})};
  const version = wanted['os.version'];
  if (own.os === wanted.os && own.architecture === wanted.architecture && variantOf(own) === variantOf(wanted) && (version === undefined || version === (image.config['os.version'] ?? ''))) return;
  throw new CetusError('notFound', `image with reference ${shown} was found but its platform (${formatPlatform(own)}) does not match the specified platform (${formatPlatform(wanted)})`);
}

export function formatPlatform({os, architecture, variant}: WantedPlatform): string {
  return [os, architecture, ...(variant ? [variant] : [])].join('/');
}

function variantOf({architecture, variant}: WantedPlatform): string {
  return variant || DEFAULT_VARIANTS[architecture] || '';
}
