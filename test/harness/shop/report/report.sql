SELECT 'TITLE: ' || count(*) || ' goods, ' || sum(pieces) || ' pieces' FROM goods;
