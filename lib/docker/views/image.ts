/** Images: list entry, inspect, history. Sizes are bytes of unpacked layers, as the Engine counts them. */
import type {ImageHistory, ListedImage} from '../../datacenter/verbs';
import type {Config} from '../../schema/docker';
import {familiar, tagsOf} from './names';
import {unixSeconds} from './time';

const NOT_COUNTED = -1;

export interface ImageViewOptions {
  /** API minor version: fields came and went. */
  speaks: (minor: number) => boolean;
  /** For a client that does not live without it, whatever version it speaks. */
  containerConfig?: boolean;
  /** The containers of each: the Engine counts them for `system df` only. */
  counted?: boolean;
  /** Every manifest of the image; here that is the one. */
  manifests?: boolean;
}

export function imageListEntry(listed: ListedImage, {speaks, counted, manifests}: ImageViewOptions): object {
  const {image, references, containers, sharedSize = NOT_COUNTED} = listed;
  const tags = tagsOf(references);
  const digests = image.repoDigests.map(familiar);
  // Until 1.43 an image without any name had a name of its own for that.
  const [noTags, noDigests] = speaks(43) ? [[], []] : tags.length || digests.length ? [null, null] : [['<none>:<none>'], ['<none>@<none>']];
  return {
    Id: image.id,
    ParentId: image.parent ?? '',
    RepoTags: tags.length ? tags : noTags,
    RepoDigests: digests.length ? digests : noDigests,
    Created: unixSeconds(image.config.created),
    Size: image.size,
    SharedSize: sharedSize,
    ...(speaks(44) ? {} : {VirtualSize: image.size}),
    Labels: image.config.config?.Labels ?? null,
    Containers: counted ? containers : NOT_COUNTED,
    ...(speaks(48) ? {Descriptor: image.manifest} : {}),
    ...(manifests ? {Manifests: [manifestSummary(listed)]} : {}),
  };
}

/** Total: the blobs that are kept and the layers that containers run on. */
function manifestSummary({image, usedBy = []}: ListedImage): object {
  const {config} = image;
  const content = image.manifest.size + image.layers.reduce((sum, layer) => sum + layer.size, 0);
  return {
    ID: image.manifest.digest, Descriptor: image.manifest, Available: true, Size: {Content: content, Total: content + image.size}, Kind: 'image',
    ImageData: {
      Platform: {architecture: config.architecture, os: config.os, ...(config.variant ? {variant: config.variant} : {})}, Containers: usedBy, Size: {Unpacked: image.size},
    },
  };
}

export function imageInspect(listed: ListedImage, {speaks, containerConfig, manifests}: ImageViewOptions): object {
  const {image, references} = listed;
  const {config} = image;
  return {
    Id: image.id,
    RepoTags: tagsOf(references),
    RepoDigests: image.repoDigests.map(familiar),
    Parent: image.parent ?? '',
    Comment: config.comment || (config.history?.at(-1)?.comment ?? ''),
    Created: config.created ?? '0001-01-01T00:00:00Z',
    ...(speaks(45) ? {} : {Container: config.container ?? ''}),
    ...(speaks(45) && !containerConfig ? {} : {ContainerConfig: legacyConfig(config.container_config ?? {})}),
    DockerVersion: config.docker_version ?? '',
    Author: config.author ?? '',
    Config: speaks(50) ? imageConfig(config.config ?? {}) : legacyConfig(config.config ?? {}),
    Architecture: config.architecture,
    ...(config.variant ? {Variant: config.variant} : {}),
    Os: config.os,
    ...(config['os.version'] ? {OsVersion: config['os.version']} : {}),
    Size: image.size,
    ...(speaks(44) ? {} : {VirtualSize: image.size}),
    GraphDriver: {Name: 'overlayfs', Data: {}},
    RootFS: {Type: 'layers', Layers: config.rootfs.diff_ids},
    Metadata: {LastTagTime: image.lastTaggedAt || '0001-01-01T00:00:00Z'},
    ...(speaks(48) ? {Descriptor: image.manifest} : {}),
    ...(manifests ? {Manifests: [manifestSummary(listed)]} : {}),
  };
}

function imageConfig(c: Config): object {
  return {
    ...(c.User ? {User: c.User} : {}),
    ...(notEmpty(c.ExposedPorts) ? {ExposedPorts: c.ExposedPorts} : {}),
    Env: c.Env ?? null,
    Cmd: c.Cmd ?? null,
    ...(c.Healthcheck ? {Healthcheck: c.Healthcheck} : {}),
    ...(c.ArgsEscaped ? {ArgsEscaped: true} : {}),
    ...(notEmpty(c.Volumes) ? {Volumes: c.Volumes} : {}),
    WorkingDir: c.WorkingDir ?? '',
    Entrypoint: c.Entrypoint ?? null,
    ...(c.OnBuild?.length ? {OnBuild: c.OnBuild} : {}),
    ...(notEmpty(c.Labels) ? {Labels: c.Labels} : {}),
    ...(c.StopSignal ? {StopSignal: c.StopSignal} : {}),
    ...(c.Shell?.length ? {Shell: c.Shell} : {}),
  };
}

/** Before 1.50 an image's config showed a container's fields as well, all at their zero values. */
function legacyConfig(c: Config): object {
  return {
    Hostname: '', Domainname: '', User: c.User ?? '', AttachStdin: false, AttachStdout: false, AttachStderr: false, Tty: false, OpenStdin: false, StdinOnce: false,
    Image: '', ...imageConfig(c), Volumes: c.Volumes ?? null, OnBuild: c.OnBuild ?? null, Labels: c.Labels ?? null,
  };
}

const notEmpty = (value: object | null | undefined): boolean => !!value && Object.keys(value).length > 0;

/** Newest first; layers without a size of their own (ENV, CMD) have 0. The top rows have ids: the image's, and those of what it was made from. */
export function imageHistory({image, references, ancestors}: ImageHistory): object[] {
  const history = image.config.history ?? [];
  let layer = 0;
  const rows = history.map((step) => ({
    Id: '<missing>',
    Created: unixSeconds(step.created),
    CreatedBy: step.created_by ?? '',
    Tags: null as string[] | null,
    Size: step.empty_layer ? 0 : image.layers[layer++]?.unpackedSize ?? 0,
    Comment: step.comment ?? '',
  }));
  // An image may have layers and no history at all.
  for (; layer < image.layers.length; layer += 1)
    rows.push({Id: '<missing>', Created: unixSeconds(image.config.created), CreatedBy: '', Tags: null, Size: image.layers[layer]!.unpackedSize, Comment: ''});
  rows.reverse();
  for (const [i, known] of [{id: image.id, references}, ...ancestors].entries()) if (rows[i]) Object.assign(rows[i], {Id: known.id, Tags: tagsOf(known.references)});
  return rows;
}

