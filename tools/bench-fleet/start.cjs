require('../typescript-hook.cjs');
require('./main.ts');
