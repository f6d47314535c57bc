// Key `run`: a whole container in the foreground.
export default ({row, docker}) => row('run', 'docker run --rm busybox true', 21, 0.5, (engine) => docker(engine, ['run', '--rm', 'busybox', 'true']), {warmup: 3});
