CREATE TABLE goods (name text PRIMARY KEY, pieces int NOT NULL);
INSERT INTO goods VALUES ('whale', 1), ('krill', 1000000);
